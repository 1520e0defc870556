"""Running engines: starts and stops engines, and knows what they hold."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from edgeserve.config.paths import saved_states
from edgeserve.config.settings import NodeSettings
from edgeserve.http.types import Upstream
from edgeserve.reports.hardware import Hardware
from edgeserve.runtime.files import fingerprint
from node.engines.base import EngineSpec
from node.hardware.sample import memory
from node.lifecycle.eviction import Resident
from node.lifecycle.load_planner import Loaded
from node.lifecycle.load_times import LoadTimes
from node.models.changes import Signature
from node.planning.planner import PlannedEngine
from node.planning.prepare import Prepared, fallbacks_of
from node.state import NodeState
from node.supervision.fallbacks import StartupFallbacks
from node.supervision.loading import LoadProgress
from node.supervision.supervisor import Supervisor

log = logging.getLogger(__name__)

SAVE_SECONDS, LOOK_SECONDS = 0.3, 0.05
"""How long an engine that leaves waits for the next order to save a slot."""

FRESH_SECONDS = 3.0
"""So long an engine that was loaded for a request waits for it; then it may leave."""


@dataclass(eq=False, kw_only=True)
class Served:
    """One engine that runs, what it was planned as, and the files it started with.

    `ordered`: it was loaded for a request. `leaves`: it unloads, and rests then, maybe
    for the engine `leaves_for`; `gone`: its file is not there any more. `followed`:
    whether a balancer hears that, and may have its slots saved.
    """

    planned: PlannedEngine
    supervisor: Supervisor
    signature: Signature
    stack: AsyncExitStack
    ordered: bool = False
    leaves: bool = False
    leaves_for: str = ""
    gone: bool = False
    left_at: float = 0.0
    followed: Callable[[], bool] = lambda: False
    taken: float | None = None
    """How long its last load took, as far as that was noted."""

    @property
    def id(self) -> str:
        """The engine's id."""
        return self.planned.spec.id

    @property
    def unused(self) -> bool:
        """Whether no slot is taken."""
        return self.supervisor.idle and not self.supervisor.slots.busy

    @property
    def settled(self) -> bool:
        """Whether its requests have finished, and balancers have saved its slots."""
        supervisor = self.supervisor
        if not supervisor.idle:
            return False
        kept = self.leaves and not self.gone and supervisor.report.saves is not None
        if not kept or supervisor.use.never_asked or not self.followed():
            return True
        return supervisor.use.unsaved_seconds(self.left_at) >= SAVE_SECONDS

    async def settles(self) -> None:
        """Wait until it is settled."""
        await self.supervisor.drained()
        while True:
            if self.settled:
                return
            await asyncio.sleep(LOOK_SECONDS)

    @property
    def failed(self) -> str | None:
        """Why it failed to load for a request."""
        return self.supervisor.load.failed if self.ordered else None

    def leave(self, why: str) -> None:
        """Take no more requests, and unload once the running ones have finished."""
        log.info("%s: %s", self.id, why)
        self.leaves, self.left_at = True, time.monotonic()
        self.supervisor.retire(why, "leaving")

    def stay(self) -> None:
        """Do not leave after all."""
        self.leaves, self.leaves_for = False, ""
        self.supervisor.stay()

    @property
    def resident(self) -> Resident:
        """What eviction has to know."""
        supervisor, fitted = self.supervisor, self.planned.fitted
        state, use = supervisor.report.state, supervisor.use
        fresh = self.ordered and use.never_asked and use.ready_seconds < FRESH_SECONDS
        held = state == "loading" or (state == "ready" and fresh)
        return Resident(
            id=self.id,
            memory=fitted.memory,
            gpu_memory=fitted.gpu_memory,
            gpus=self.planned.spec.launch.devices,
            stays=supervisor.pinned,
            held=held and not supervisor.retiring,
            leaves=supervisor.retiring,
            busy=not self.unused,
            reload_seconds=supervisor.load.seconds,
            idle_seconds=use.idle_seconds,
        )


class RunningEngines:
    """The engines in memory. `woken` is called when a load has ended."""

    def __init__(
        self,
        state: NodeState,
        settings: NodeSettings,
        upstream: Upstream,
        times: LoadTimes,
        woken: Callable[[], None],
    ) -> None:
        self.served: list[Served] = []
        self.epochs: dict[str, int] = {}
        self._state = state
        self._settings = settings
        self._upstream = upstream
        self._times = times
        self._woken = woken

    def find(self, id_: str) -> Served | None:
        """Return the engine with that id."""
        return next((each for each in self.served if each.id == id_), None)

    @property
    def planned(self) -> tuple[PlannedEngine, ...]:
        """What runs, as it was planned."""
        return tuple(each.planned for each in self.served)

    @property
    def loaded(self) -> Iterator[Loaded]:
        """What runs, as a load sees it."""
        for each in self.served:
            yield Loaded(planned=each.planned, resident=each.resident)

    def hardware(self) -> Hardware:
        """Return the hardware with the memory that our engines have taken so far."""
        now = memory()
        ours = sum(
            min(each.supervisor.held(), each.planned.fitted.memory)
            for each in self.served
        )
        free = msgspec.structs.replace(now, available=now.available + ours)
        return msgspec.structs.replace(self._state.hardware.latest, memory=free)

    async def start(
        self,
        found: Prepared,
        planned: PlannedEngine,
        signature: Signature,
        *,
        ordered: bool = False,
    ) -> None:
        """Start an engine."""
        _say(planned)
        spec = await asyncio.to_thread(saving, planned.spec, self._settings)
        latest = self._state.hardware.latest
        fallbacks = fallbacks_of(found, planned, self._settings, latest)
        supervisor = Supervisor(
            engine=found.engine_of(planned),
            spec=spec,
            settings=self._settings,
            upstream=self._upstream,
            changed=partial(self._state.feed.engine_changed, spec.id),
            fallbacks=StartupFallbacks(fallbacks, planned.instead or None),
            load=LoadProgress(self._times.seconds(planned), over=self._woken),
            epoch=self.epochs.get(spec.id, 0),
        )
        supervisor.pinned = planned.pinned
        stack = AsyncExitStack()
        await stack.enter_async_context(supervisor.running())
        self.served.append(
            Served(
                planned=planned,
                supervisor=supervisor,
                signature=signature,
                stack=stack,
                ordered=ordered,
                followed=lambda: self._state.feed.followed,
            )
        )

    async def stop(self, served: Served) -> None:
        """Stop an engine at once."""
        self.epochs[served.id] = served.supervisor.report.epoch
        await served.stack.aclose()
        self.served.remove(served)

    async def stop_all(self) -> None:
        """Stop every engine, also where one of them fails to."""
        async with AsyncExitStack() as stack:
            for each in self.served:
                stack.push_async_callback(each.stack.aclose)
            self.served = []


def saving(spec: EngineSpec, settings: NodeSettings) -> EngineSpec:
    """Let an engine save what its slots hold; reads its file, to know it again."""
    folder = saved_states(settings.state_dir)
    unsaved = spec.role != "generate" or spec.projector or not settings.cache_disk_mib
    if unsaved or not folder.is_dir():
        return spec
    try:
        return replace(spec, states=folder, content=fingerprint(spec.path))
    except OSError:
        return spec  # it will not start either


def _say(planned: PlannedEngine) -> None:
    spec, tuning = planned.spec, planned.tuning
    if tuning and (planned.fitted.tuned or tuning.failed):
        log.info("%s: %s", spec.id, tuning.summary)
    if planned.instead:
        log.warning("%s: %s", spec.id, planned.instead)
