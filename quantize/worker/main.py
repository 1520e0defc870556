"""Worker process: read one job from standard input, write events to standard output.

It ends with its parent, whose death closes standard input.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import BinaryIO

import msgspec

from quantize.worker.messages import Emit, Event, Failed, Job, Quantize, Score, Speed


def main() -> None:
    """Run the job. A failure becomes an event, a crash an exit status."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    out = _own_output()
    encode = msgspec.json.Encoder().encode

    def emit(event: Event) -> None:
        out.write(encode(event) + b"\n")
        out.flush()

    try:
        _do(job, emit)
    except Exception as error:  # noqa: BLE001 - the parent reports every failure
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
    """Reserve standard output for events; the library's own output goes to stderr."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return out


def _leave_with_parent() -> None:
    # Not through sys.stdin: holding its lock here would block the interpreter's exit.
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
