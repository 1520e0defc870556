"""Worker handle: start the child process, send a job, read events, end the process."""

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
from edgeserve.runtime.threads import openmp_environment
from quantize.worker.messages import Done, Event, Failed, Job

LAST = Done | Failed | Quality | Speeds
"""Last event of a job."""


class LibraryMissing(CommandError):
    """llama-cpp-python is not installed; the message says how to install it."""

    def __init__(self) -> None:
        super().__init__(
            "this needs llama-cpp-python: `pip install '.[quantize]'` in the project's"
            " folder compiles it, which takes about 10 minutes"
        )


class QuantizerFailed(CommandError):
    """llama.cpp failed; the message has the last lines of its log."""


class Crashed(QuantizerFailed):
    """A signal ended the worker: a fault of the library, not of the file."""


def library_is_there() -> bool:
    """Return whether llama-cpp-python is installed."""
    return importlib.util.find_spec("llama_cpp") is not None


def require_library() -> None:
    """Raise LibraryMissing if llama-cpp-python is not installed."""
    if not library_is_there():
        raise LibraryMissing


@contextmanager
def events(job: Job) -> Generator[Iterator[Event]]:
    """Run a job in a child process while the block runs; yield its events.

    The end of the block ends the child. Iterating raises QuantizerFailed if the job
    fails or the child dies.
    """
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "quantize.worker.main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # Only the parent gets Ctrl-C; it ends the child and cleans up.
            start_new_session=True,
            env=openmp_environment(),
        )
        try:
            yield _read_events(child, job, log)
        finally:
            child.kill()
            child.communicate()


def _read_events(
    child: subprocess.Popen[bytes], job: Job, log: BinaryIO
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
    raise (Crashed if status < 0 else QuantizerFailed)(_last_lines(status, log))


def _last_lines(status: int, log: BinaryIO) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    how = f"with status {status}"
    if status < 0:
        how = f"by {signal.Signals(-status).name}"
    words = "; ".join(lines[-3:]) or "it said nothing"
    return f"llama.cpp's process ended {how}: {words}"
