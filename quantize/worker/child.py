"""Worker handle: start the child process, send a job, read its events, end it."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import msgspec

from edgeserve.errors import CommandError
from edgeserve.models.comparison import Quality, Speeds
from edgeserve.runtime.threads import calm
from quantize.worker.messages import Done, Event, Failed, Job

LAST = Done | Failed | Quality | Speeds
"""Events after which a job has nothing more to say."""


class LibraryMissing(CommandError):
    """llama-cpp-python is not installed; the sentence says how to install it."""

    def __init__(self) -> None:
        super().__init__(
            "this needs llama-cpp-python: `pip install '.[quantize]'` in the project's"
            " folder compiles it for about 10 minutes"
        )


class QuantizerFailed(CommandError):
    """llama.cpp refused or broke down; the sentence says what it said last."""


class Crashed(QuantizerFailed):
    """A signal ended llama.cpp's process: a fault of the library, not of the file."""


def library_is_there() -> bool:
    """Whether llama-cpp-python is installed."""
    return importlib.util.find_spec("llama_cpp") is not None


def require_library() -> None:
    """Raise LibraryMissing before anything is begun."""
    if not library_is_there():
        raise LibraryMissing


@contextmanager
def events(job: Job) -> Generator[Iterator[Event]]:
    """Run a job in a child for the length of the block and give its events.

    Leaving the block, however it is left, ends the child. Iterating raises
    QuantizerFailed if the job fails or the child dies.
    """
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [sys.executable, "-m", "quantize.worker.main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            # Ctrl-C is for us; we end the child ourselves and clean up after it.
            start_new_session=True,
            env=calm(),
        )
        try:
            yield _listen(child, job, said)
        finally:
            child.kill()
            child.communicate()


def _listen(
    child: subprocess.Popen[bytes], job: Job, said: BinaryIO
) -> Iterator[Event]:
    assert child.stdin is not None and child.stdout is not None  # noqa: S101, PT018 - pipes
    child.stdin.write(msgspec.json.encode(job) + b"\n")
    child.stdin.flush()
    decode = msgspec.json.Decoder(Event).decode
    for line in child.stdout:
        event = decode(line)
        if isinstance(event, Failed):
            raise QuantizerFailed(event.why)
        yield event
        if isinstance(event, LAST):
            return
    status = child.wait()
    raise (Crashed if status < 0 else QuantizerFailed)(_last_words(status, said))


def _last_words(status: int, said: BinaryIO) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    how = f"with status {status}"
    if status < 0:
        how = f"by {signal.Signals(-status).name}"
    words = "; ".join(lines[-3:]) or "it said nothing"
    return f"llama.cpp's process ended {how}: {words}"
