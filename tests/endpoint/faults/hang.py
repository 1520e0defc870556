"""Stop the one thread of an engine that computes: a decode that never returns.

All others go on: /health and /metrics are well, and the process is not stopped.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time

import psutil

SEIZE, INTERRUPT = 0x4206, 0x4207
ALL = 0x40000000
"""Wait for threads, too."""

LOOK_SECONDS = 0.1
BUSY_SECONDS, SHORT_SECONDS, ENOUGH_LOOKS = 0.05, 0.02, 250


class NotAllowed(Exception):
    """This system lets no process stop another's threads."""


def hang(engine: psutil.Process, seconds: float) -> None:
    """Stop the thread that is busiest now, for `seconds` or until the engine is killed.

    Raises NotAllowed.
    """
    stopped, problem = threading.Event(), list[str]()
    threading.Thread(
        target=_trace, args=(_busiest(engine), seconds, stopped, problem), daemon=True
    ).start()
    stopped.wait()
    if problem:
        raise NotAllowed(*problem)


def _busiest(engine: psutil.Process) -> int:
    """Return the id of the thread that computes now; another one loaded the model."""

    def used() -> dict[int, float]:
        return {each.id: each.user_time for each in engine.threads()}

    began = used()
    for _ in range(ENOUGH_LOOKS):
        time.sleep(SHORT_SECONDS)
        more = {id_: now - began.get(id_, now) for id_, now in used().items()}
        busiest = max(more, key=more.__getitem__)
        if more[busiest] >= BUSY_SECONDS and busiest != engine.pid:
            return busiest
    raise AssertionError("no thread of the engine computes")


def _trace(
    thread: int, seconds: float, stopped: threading.Event, problem: list[str]
) -> None:
    """Hold the thread. Only one thread may trace it, and must see its end."""
    libc = ctypes.CDLL(None, use_errno=True)
    if any(libc.ptrace(each, thread, None, None) for each in (SEIZE, INTERRUPT)):
        problem.append(os.strerror(ctypes.get_errno()))
    stopped.set()
    until = time.monotonic() + seconds
    while not problem and time.monotonic() < until:
        found, status = os.waitpid(thread, ALL | os.WNOHANG)
        if found and not os.WIFSTOPPED(status):
            return
        time.sleep(LOOK_SECONDS)
