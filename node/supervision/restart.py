"""Restart policy: back-off, fallbacks, and waiting for a new model file.

What helped is written down, and only then: a trouble that passes is no verdict.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import CommandError, in_words
from node.engines.base import Engine, EngineSpec
from node.engines.devices import applied, of, stepped_down
from node.engines.output import ran_out_of_memory
from node.planning.plan import PlannedEngine

log = logging.getLogger(__name__)

FIRST, LONGEST = 1.0, 30.0
"""Seconds between restarts: 1, 2, 4, … at most 30."""

WINDOW = 300.0
LIMIT = 4
"""This many failures within the window, in seconds, and the engine is quarantined."""

SOUND_SECONDS = 60.0
"""Ready for this long, an engine has proved itself: earlier failures count no more."""


@dataclass(frozen=True)
class RestartBackoff:
    """The failures since the engine last proved itself, as clock readings."""

    times: tuple[float, ...] = ()

    def after(self, now: float, *, ready_seconds: float) -> RestartBackoff:
        """Add one, of an engine that had been ready for so long."""
        earlier = () if ready_seconds >= SOUND_SECONDS else self.times
        return RestartBackoff((*(t for t in earlier if now - t < WINDOW), now))

    @property
    def delay(self) -> float:
        """Seconds to wait before the next start."""
        return min(FIRST * 2.0 ** (len(self.times) - 1), LONGEST)

    @property
    def hopeless(self) -> bool:
        """Whether starting again is no use until something changes."""
        return len(self.times) >= LIMIT


async def replaced(path: Path, every: float) -> None:
    """Wait until the file is written again, gone or back; looks every so many seconds.

    For a model that cannot be served, the one reason to hope again.
    """
    before = _stamp(path)
    while _stamp(path) == before:  # noqa: ASYNC110 - a file has no event
        await asyncio.sleep(every)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


PORT_TAKEN = "couldn't bind"

CRASHES = 2
"""So many crashes in a row while it loads, and another engine is tried."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How one life of an engine ended.

    `ready`: it had become so. `died`: its process ended by itself, other than for a
    port that somebody has taken; `crashed`: neither for want of memory.
    """

    reason: str = ""
    ready: bool = False
    died: bool = False
    crashed: bool = False
    no_memory: bool = False


def ended(status: int, lines: Iterable[str]) -> Ending:
    """Read how a process ended out of its status and its last lines."""
    said = list(lines)
    died = not any(PORT_TAKEN in line for line in said)
    no_memory = ran_out_of_memory(said)
    killed = status == -signal.SIGKILL  # by the kernel, mostly, where memory is short
    return Ending(
        died=died, crashed=died and not no_memory and not killed, no_memory=no_memory
    )


@dataclass(frozen=True)
class Attempt:
    """An engine to start and how; `said` is why, in a sentence."""

    engine: Engine
    spec: EngineSpec
    said: str = ""


class Ways(Protocol):
    """What `FallbackEngines` can do. Each may take seconds and runs in a thread."""

    @property
    def is_tuned(self) -> bool:
        """See `FallbackEngines`."""
        ...

    @property
    def falls_back(self) -> bool:
        """See `FallbackEngines`."""
        ...

    def untuned(self) -> EngineSpec | None:
        """See `FallbackEngines`."""
        ...

    def bundled(self) -> tuple[Engine, PlannedEngine]:
        """See `FallbackEngines`."""
        ...

    def tuning_failed(self, why: str) -> None:
        """See `FallbackEngines`."""
        ...

    def crashed(self, why: str) -> str | None:
        """See `FallbackEngines`."""
        ...


class StartupFallbacks:
    """Chooses what to try next for one engine. `note` is for its report when ready."""

    def __init__(self, ways: Ways | None = None, note: str | None = None) -> None:
        self._ways = ways
        self._note = note
        self._done: set[str] = set()
        self._crashes = 0
        self._helped: Callable[[], str | None] | None = None

    async def after(self, ending: Ending, now: Attempt) -> Attempt | None:
        """Return what to start instead; None to start the same again."""
        if ending.ready:
            return self._with_less(ending, now)
        self._crashes += ending.crashed
        return (
            await self._without_tuning(ending, now)
            or self._with_less(ending, now)
            or await self._with_another(ending, now)
        )

    async def helped(self, id_: str) -> str | None:
        """Write down what has made the engine ready; returns the note."""
        written, self._helped = self._helped, None
        self._crashes = 0
        if written is not None:
            try:
                self._note = await asyncio.to_thread(written)
                log.warning("%s: %s", id_, self._note)
            except OSError as error:
                why = in_words(error)
                log.warning("%s: cannot write down what has helped: %s", id_, why)
        return self._note

    async def _without_tuning(self, ending: Ending, now: Attempt) -> Attempt | None:
        ways = self._ways
        if ways is None or not ways.is_tuned or not ending.died:
            return None
        if not self._first("untuned"):
            return None
        spec = await asyncio.to_thread(ways.untuned)
        if spec is None:
            return None
        said = f"does not start with its tuned settings: {ending.reason}"

        def written() -> str:
            ways.tuning_failed(ending.reason)
            return f"runs untuned, for it {said}; `edgeserve node tune` measures anew"

        self._helped = written
        return Attempt(now.engine, spec, f"{said}; trying without")

    def _with_less(self, ending: Ending, now: Attempt) -> Attempt | None:
        """Give back GPU layers where memory ran out."""
        launch = now.spec.launch
        if not (ending.no_memory and launch.gpu_layers):
            return None
        less = stepped_down(of(launch), now.spec.layers or launch.gpu_layers)
        if less is None:
            return None
        self._helped = None
        said = f"out of memory; trying again with {less.layers} layers on the GPU"
        spec = replace(now.spec, launch=applied(launch, less), expected=None)
        return Attempt(now.engine, spec, said)

    async def _with_another(self, ending: Ending, now: Attempt) -> Attempt | None:
        """Let the bundled engine serve what llama-server crashes with."""
        ways = self._ways
        if ways is None or not ways.falls_back or self._crashes < CRASHES:
            return None
        if not self._first("bundled"):
            return None
        said = f"crashed {self._crashes} times while loading: {ending.reason}"
        try:
            engine, placed = await asyncio.to_thread(ways.bundled)
        except CommandError as error:
            log.warning("%s: %s; %s", now.spec.id, said, error)
            return None
        self._helped = lambda: ways.crashed(ending.reason)
        return Attempt(engine, placed.spec, f"{said}; trying the bundled engine")

    def _first(self, remedy: str) -> bool:
        """Whether it has not been tried before; it has from now on."""
        before = remedy in self._done
        self._done.add(remedy)
        return not before


def given_up(settings: NodeSettings, reason: str) -> str:
    """Say that an engine is not started again, and what can be done."""
    hint = "replace the file or restart the node"
    if settings.llama_server or settings.engine == "native":
        hint += "; with no engine named, it tries the bundled one"
    return f"failed {LIMIT} times in a row; {hint}; {reason}"
