"""Startup fallbacks: other settings or another engine, where an engine does not start.

A fallback is written down only after it has worked, so that a passing fault leaves no
trace.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from edgeserve.errors import CommandError, in_words
from edgeserve.runtime.tasks import in_thread
from node.engines.base import Engine, EngineSpec
from node.engines.devices import stepped_down
from node.engines.output import ran_out_of_memory
from node.planning.planner import PlannedEngine

log = logging.getLogger(__name__)

PORT_TAKEN = "couldn't bind"

CRASHES = 2
"""After this many crashes in a row while loading, another engine is tried."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How one process of an engine ended.

    `ready`: it had become ready. `died`: the process ended by itself, and not because
    its port was taken. `crashed`: it died, and not for want of memory.
    """

    reason: str = ""
    ready: bool = False
    died: bool = False
    crashed: bool = False
    no_memory: bool = False


def ended(status: int, lines: Iterable[str]) -> Ending:
    """Classify the end of a process by its status and its last lines."""
    output = list(lines)
    died = not any(PORT_TAKEN in line for line in output)
    no_memory = ran_out_of_memory(output)
    killed = status == -signal.SIGKILL  # by the kernel, mostly, where memory is short
    return Ending(
        died=died, crashed=died and not no_memory and not killed, no_memory=no_memory
    )


@dataclass(frozen=True)
class Attempt:
    """An engine to start and its launch; `why` is the reason, in a sentence."""

    engine: Engine
    spec: EngineSpec
    why: str = ""


class Fallbacks(Protocol):
    """The fallbacks of one engine. A method may take seconds and runs in a thread."""

    @property
    def is_tuned(self) -> bool:
        """Whether the engine starts with tuned settings."""
        ...

    @property
    def falls_back(self) -> bool:
        """Whether the bundled engine may replace it."""
        ...

    def untuned(self) -> EngineSpec | None:
        """Return the launch without tuned settings; None where that does not fit."""
        ...

    def bundled(self) -> tuple[Engine, PlannedEngine]:
        """Return the bundled engine and its plan. Raises CommandError."""
        ...

    def tuning_failed(self, why: str) -> None:
        """Mark the tuning as failed. Raises OSError."""
        ...

    def crashed(self, why: str) -> str | None:
        """Record that the engine crashed with this model; returns a sentence."""
        ...


class StartupFallbacks:
    """Chooses what to start next. `note` is for the engine's report when ready."""

    def __init__(
        self, fallbacks: Fallbacks | None = None, note: str | None = None
    ) -> None:
        self._fallbacks = fallbacks
        self._note = note
        self._tried: set[str] = set()
        self._crashes = 0
        self._write_down: Callable[[], str | None] | None = None

    async def after(self, ending: Ending, now: Attempt) -> Attempt | None:
        """Return what to start instead; None to start the same again."""
        if ending.ready:
            return self._with_less(ending, now)
        self._crashes += ending.crashed
        return (
            await self._without_tuning(ending, now)
            or self._with_less(ending, now)
            or await self._with_bundled(ending, now)
        )

    async def helped(self, id_: str) -> str | None:
        """Record the fallback that made the engine ready; returns the note."""
        write_down, self._write_down = self._write_down, None
        self._crashes = 0
        if write_down is not None:
            try:
                self._note = await in_thread(write_down)
                log.warning("%s: %s", id_, self._note)
            except OSError as error:
                why = in_words(error)
                log.warning("%s: cannot record the fallback that works: %s", id_, why)
        return self._note

    async def _without_tuning(self, ending: Ending, now: Attempt) -> Attempt | None:
        fallbacks = self._fallbacks
        if fallbacks is None or not fallbacks.is_tuned or not ending.died:
            return None
        if not self._is_new("untuned"):
            return None
        spec = await asyncio.to_thread(fallbacks.untuned)
        if spec is None:
            return None
        why = f"does not start with its tuned settings: {ending.reason}"

        def write_down() -> str:
            fallbacks.tuning_failed(ending.reason)
            return f"runs untuned: it {why}; `edgeserve node tune` measures again"

        self._write_down = write_down
        return Attempt(now.engine, spec, f"{why}; trying without them")

    def _with_less(self, ending: Ending, now: Attempt) -> Attempt | None:
        """Take layers off the GPU where memory ran out."""
        spec = now.spec
        launch = stepped_down(spec.launch, spec.layers or spec.launch.gpu_layers)
        if not ending.no_memory or launch is None or spec.launch.workers:
            return None
        self._write_down = None
        why = f"out of memory; trying again with {launch.gpu_layers} layers on the GPU"
        return Attempt(now.engine, replace(spec, launch=launch, expected=None), why)

    async def _with_bundled(self, ending: Ending, now: Attempt) -> Attempt | None:
        """Let the bundled engine serve what llama-server crashes with."""
        fallbacks = self._fallbacks
        if fallbacks is None or not fallbacks.falls_back or self._crashes < CRASHES:
            return None
        if not self._is_new("bundled"):
            return None
        why = f"crashed {self._crashes} times while loading: {ending.reason}"
        try:
            engine, planned = await asyncio.to_thread(fallbacks.bundled)
        except CommandError as error:
            log.warning("%s: %s; %s", now.spec.id, why, error)
            return None
        self._write_down = lambda: fallbacks.crashed(ending.reason)
        return Attempt(engine, planned.spec, f"{why}; trying the bundled engine")

    def _is_new(self, fallback: str) -> bool:
        """Whether it was not tried before; marks it as tried."""
        before = fallback in self._tried
        self._tried.add(fallback)
        return not before
