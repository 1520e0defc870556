"""Background tasks: starts, restarts and ends all work beside the requests.

A failed task must not end a serving process, and must not stop unnoticed. Each kind of
task is declared once, with a name and a restart policy, as in systemd and Kubernetes.
A failure is counted under that name and logged once; then the policy applies. Work
whose end is meant to end the process is awaited in the foreground, not started here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeserve.errors import in_words
from edgeserve.runtime.log import warn_once

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a task is started again: 1, 2, 4, … 60 while it keeps failing."""

Policy = Literal["always", "on-failure", "never", "timer"]
"""When a task is started again: whenever it ends, when it fails, or never, where its
owner starts another one. `timer`: a timer calls it, through `guarded`."""

Work = Callable[[], Coroutine[Any, Any, object]]


@dataclass(frozen=True)
class Kind:
    """A kind of background task."""

    name: str
    policy: Policy


KINDS: dict[str, Kind] = {}
"""All kinds that imported modules have declared, by name."""


def declared(name: str, policy: Policy = "always") -> Kind:
    """Declare a kind of task, at the top level of the module that starts it."""
    if name in KINDS:
        raise ValueError(f"background task {name!r} is declared twice")
    KINDS[name] = Kind(name, policy)
    return KINDS[name]


class Failures:
    """Counts the failures of each kind of task in this process."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._listeners: list[Callable[[], None]] = []

    @property
    def counts(self) -> Mapping[str, int]:
        """Failures by name; kinds without a failure are left out."""
        return dict(self._counts)

    @contextmanager
    def subscribed(self, listener: Callable[[], None]) -> Generator[None]:
        """Call `listener` after each failure while the block runs."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def note(self, kind: Kind, label: str, why: str) -> None:
        """Count a failure, and log it unless the same has been logged before."""
        self._counts[kind.name] += 1
        outlook = "" if kind.policy == "never" else "; it continues"
        warn_once(log, f"background task {label!r} failed: {why}{outlook}")
        for listener in tuple(self._listeners):
            listener()


failures = Failures()


@dataclass(frozen=True)
class Started:
    """A started task. The block that owns it waits for its end."""

    task: asyncio.Task[None]

    def cancel(self) -> None:
        """End the task before its block ends."""
        self.task.cancel()


class Tasks:
    """The background tasks of one block; see `background`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, kind: Kind, work: Work, about: str = "") -> Started:
        """Run `work()` until the block ends, restarted as the policy says.

        `about` tells several tasks of one kind apart in the log.
        """
        label = f"{kind.name} {about}".rstrip()
        task = asyncio.create_task(_supervised(kind, work, label), name=label)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return Started(task)

    async def end(self) -> None:
        """Cancel every task and wait until all have ended."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))


@asynccontextmanager
async def background() -> AsyncGenerator[Tasks]:
    """Own background tasks for the length of the block; all end with it."""
    tasks = Tasks()
    try:
        yield tasks
    finally:
        await tasks.end()


async def _supervised(kind: Kind, work: Work, label: str) -> None:
    """Run a task and restart it as its policy says."""
    loop = asyncio.get_running_loop()
    failed = 0
    while True:
        started = loop.time()
        why = await _outcome(kind, work)
        if why is None:
            if kind.policy != "always":
                return
            why = "it ended unexpectedly"
        failures.note(kind, label, why)
        if kind.policy == "never":
            return
        lasted = loop.time() - started
        failed = 1 if lasted > LONGEST_PAUSE else failed + 1
        await asyncio.sleep(pause(failed))


def pause(failed: int) -> float:
    """Return the seconds to wait after `failed` failures in a row. Pure."""
    return min(FIRST_PAUSE * 2.0 ** min(failed - 1, 10), LONGEST_PAUSE)


async def _outcome(kind: Kind, work: Work) -> str | None:
    """Run a task once; return how it failed, or None."""
    try:
        await attempt(kind, work)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return "an operation that it waited for was cancelled"
    except Exception as error:
        log.debug("background task %r failed", kind.name, exc_info=error)
        return _described(error)
    return None


async def attempt(kind: Kind, work: Work) -> None:  # noqa: ARG001 - tests make one kind fail
    """Run a task once."""
    await work()


def guarded(kind: Kind, work: Callable[[], object]) -> None:
    """Run what a timer calls; a failure is counted and does not stop the timer."""
    try:
        step(kind, work)
    except Exception as error:
        log.debug("background task %r failed", kind.name, exc_info=error)
        failures.note(kind, kind.name, _described(error))


def step(kind: Kind, work: Callable[[], object]) -> None:  # noqa: ARG001 - as above
    """Run it once."""
    work()


def _described(error: Exception) -> str:
    """Describe an unexpected error, with its place in the code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return in_words(error)
    where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return f"{type(error).__name__}: {in_words(error)} ({where})"
