"""Worker process: one job from standard input, events to standard output.

It ends by itself when its parent does: the parent's end of standard input closes.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import BinaryIO

import msgspec

from quantize.worker.messages import Emit, Event, Failed, Job, Quantize, Score, Speed


def main() -> None:
    """Do the job; a failure is an event, a crash is an exit status."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    out = _own_output()
    encode = msgspec.json.Encoder().encode

    def emit(event: Event) -> None:
        out.write(encode(event) + b"\n")
        out.flush()

    try:
        _do(job, emit)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear it
        emit(Failed(str(error) or repr(error)))


def _do(job: Job, emit: Emit) -> None:
    match job:
        case Quantize():
            from quantize.worker.library import quantize

            quantize(job, emit)
        case Score():
            from quantize.worker.scoring import score

            score(job, emit)
        case Speed():
            from quantize.worker.inference import measure

            measure(job, emit)


def _own_output() -> BinaryIO:
    """Keep standard output for events; what the library prints goes to the log."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return out


def _leave_with_parent() -> None:
    # Not through sys.stdin: its lock, held here, would spoil the interpreter's exit.
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
