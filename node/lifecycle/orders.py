"""Orders: load, unload and desire, as balancers and people send them.

An order decides at once and returns; what it has decided is done by the shelf, which
also does what was not ordered: pinned models load, idle ones unload.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from time import monotonic

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import Draining, EdgeserveError, NoNode
from edgeserve.http.client.raw import Connecting
from edgeserve.http.types import Upstream
from edgeserve.models.memory import MIB
from edgeserve.orders.engines import (
    DesiredModel,
    LoadEngine,
    ModelProblem,
    UnloadEngine,
)
from edgeserve.orders.groups import GroupCapacity
from edgeserve.runtime.tasks import in_thread
from edgeserve.wire import EngineReport
from node.groups.capacity import capacity
from node.groups.workers import Workers
from node.lifecycle.desired import DesiredModels
from node.lifecycle.load_times import LoadTimes
from node.lifecycle.loads import Loads
from node.lifecycle.refusals import (
    DoesNotFit,
    EnginesBusy,
    LoadFailed,
    ModelForbidden,
    ModelPinned,
    UnknownEngine,
)
from node.lifecycle.running import RunningEngines, Served
from node.lifecycle.unmet import NodeModels, unmet
from node.planning.available import FORBIDDEN
from node.planning.plan import Plan
from node.planning.planner import PlannedEngine
from node.state import NodeState

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0
"""A pinned model that does not fit is tried again after so long."""


class Orders:
    """Decides what is in memory. `woken` tells the shelf that there is work.

    `stale`: the shelf has to plan anew.
    """

    def __init__(
        self,
        state: NodeState,
        settings: NodeSettings,
        upstream: Upstream,
        clock: Callable[[], float] = monotonic,
        nodes: Connecting | None = None,
    ) -> None:
        self.lock = asyncio.Lock()
        self.woken = asyncio.Event()
        self.stale = True
        self.desired = DesiredModels(settings.state_dir)
        times = LoadTimes(settings.state_dir)
        self.workers = Workers(settings, self._workers_changed)
        self.running = RunningEngines(
            state, settings, upstream, times, self.woken.set, self.workers, nodes
        )
        self.loads = Loads(
            settings, self.running, times, lambda: self.desired.wishes, clock
        )
        self._state = state
        self._settings = settings
        self._clock = clock
        self._refused: dict[str, tuple[float, str]] = {}
        state.capacity = self._capacity

    async def load(self, order: LoadEngine) -> EngineReport:
        """Load an engine. Raises a refusal, see `refusals`."""
        async with self.ordered(order.engine):
            await self._load(order)
        return self._report(order.engine)

    async def unload(self, order: UnloadEngine) -> EngineReport:
        """Unload an engine. Raises a refusal."""
        async with self.ordered(order.engine):
            self._unload(order)
        return self._report(order.engine)

    async def desire(self, said: DesiredModel) -> tuple[DesiredModel, ...]:
        """Take in what is desired of a model, keep it, and converge to it."""
        async with self.ordered():
            self.desired.take(said)
            await in_thread(self.desired.save)
            self.stale = True
            self._refused.clear()
            self.mark()
        return self.desired.models

    @asynccontextmanager
    async def ordered(self, id_: str = "") -> AsyncGenerator[None]:
        """Hold the lock for an order; afterwards tell what it has changed."""
        async with self.lock:
            if self._state.draining:
                raise Draining
            if id_ and self.loads.found is None:
                raise NoNode("this node still looks for its models; try again")
            yield
            self.tell()
        self.woken.set()

    async def _load(self, order: LoadEngine) -> None:
        id_, served = order.engine, self._served(order.engine)
        if served is not None:
            if served.supervisor.retiring:
                self._stay(served)
            return
        if id_ in self.loads.pending:
            return
        if id_ not in self.loads.absent:
            raise self._unknown(id_)
        await self.loads.begin(id_, drain=order.drain, why=order.why)

    def _workers_changed(self) -> None:
        self._state.workers, self._state.rpc = self.workers.reports, self.workers.rpc
        self._state.feed.report_changed()

    def _capacity(self) -> GroupCapacity | None:
        """Return what a group could have of this node."""
        found, settings = self.loads.found, self.workers.within(self._settings)
        if found is None:
            return None
        hardware = self.running.hardware()
        residents = [each.resident for each in self.running.served]
        stay = [each for each in residents if each.stays]
        return capacity(
            hardware,
            self.workers.beside(found).devices,
            staying=(sum(e.memory for e in stay), sum(e.gpu_memory for e in stay)),
            allowed=settings.memory_mib * MIB if settings.memory_mib else None,
            threads=settings.threads or hardware.cpu.physical_cores,
            head=settings.on_demand,
        )

    def _stay(self, served: Served) -> None:
        """Let an engine stay that leaves, if nothing waits for its memory."""
        if self.loads.needs(served.id) or not served.leaves:
            raise EnginesBusy(served.id, (served.id,))
        spec = served.planned.spec
        if self.desired.wishes.forbids(spec.model, spec.variant):
            raise ModelForbidden(spec.variant)
        served.stay()

    def _unload(self, order: UnloadEngine) -> None:
        id_, served = order.engine, self._served(order.engine)
        if served is None:
            if id_ in self.loads.pending:
                self.loads.cancel(id_)
            elif id_ not in self.loads.absent:
                raise self._unknown(id_)
            return
        if served.supervisor.retiring:
            return
        if served.supervisor.pinned:
            raise ModelPinned(served.planned.spec.variant)
        if not served.unused and not order.drain:
            raise EnginesBusy(id_, (id_,))
        served.leave(f"it unloads{f': {order.why}' if order.why else ''}")

    def _served(self, id_: str) -> Served | None:
        served = self.running.find(id_)
        return None if served is None or served.gone else served

    def _unknown(self, id_: str) -> EdgeserveError:
        """Return why an engine cannot be loaded that is not even absent."""
        plan = self.loads.found.plan if self.loads.found else Plan()
        variant = id_.partition("#")[0].partition("@")[0]
        for each in plan.available:
            if each.variant == variant:
                if each.reason == FORBIDDEN:
                    return ModelForbidden(variant)
                return DoesNotFit(id_, each.reason)
        known = (*self._state.engines(), *self.loads.absent)
        return UnknownEngine(id_, known)

    def _report(self, id_: str) -> EngineReport:
        return self._state.engines().get(id_) or self.loads.report(id_)

    async def converge(self) -> None:
        """Do what was not ordered: load what is pinned, unload what is idle."""
        self.mark()
        now = self._clock()
        for planned in tuple(self._missing()):
            id_ = planned.spec.id
            until, _ = self._refused.get(id_, (0.0, ""))
            if now < until:
                continue
            try:
                await self.loads.begin(id_, drain=True, why="it is pinned")
            except DoesNotFit as error:
                self._refused[id_] = now + RETRY_SECONDS, str(error)
            except (EnginesBusy, LoadFailed):
                self._refused.pop(id_, None)

    def mark(self) -> None:
        """Mark what is pinned; let go what is forbidden or was idle for too long."""
        wishes = self.desired.wishes
        for each in self.running.served:
            spec, supervisor = each.planned.spec, each.supervisor
            pinned = each.planned.pinned or wishes.pins(spec.model, spec.variant)
            if pinned != supervisor.pinned:
                supervisor.pinned = pinned
                self._state.feed.engine_changed(spec.id)
            forbidden = wishes.forbids(spec.model, spec.variant)
            if forbidden and not supervisor.retiring:
                each.leave(FORBIDDEN)
            elif not forbidden:
                self._keep(each, pinned=pinned)
        for id_, loading in tuple(self.loads.pending.items()):
            spec = loading.planned.spec
            if wishes.forbids(spec.model, spec.variant):
                self.loads.cancel(id_)

    def _keep(self, served: Served, *, pinned: bool) -> None:
        """Unload an engine that was idle for too long, unless it is pinned."""
        retiring = served.supervisor.retiring
        if pinned and retiring and served.leaves and not self.loads.needs(served.id):
            served.stay()
        elif not pinned and not retiring and self._is_idle(served):
            served.leave("it was idle for as long as it is kept alive")

    def _is_idle(self, served: Served) -> bool:
        """Whether an engine has been idle for as long as it is kept."""
        spec, usual = served.planned.spec, self._settings.keep_alive
        seconds = self.desired.keep_alive(spec.model, spec.variant, usual)
        ready = served.supervisor.use.ready_at is not None
        idle = ready and served.unused
        return idle and 0 < seconds <= served.supervisor.use.idle_seconds

    def _missing(self) -> Iterator[PlannedEngine]:
        """Yield the absent engines that are pinned; of each model the best variant."""
        absent = self.loads.absent.values()
        there = self.loads.planned
        yield from (each for each in absent if each.pinned)
        for name in sorted(self.desired.wishes.pinned):
            if not any(_named(each, name) for each in there):
                able = [e for e in absent if _named(e, name) and not e.pinned]
                if able:
                    yield max(able, key=lambda e: (e.whole, e.fitted.need.total))

    def tell(self) -> None:
        """Report the engines, and what is not as desired."""
        served, state = self.running.served, self._state
        state.desired = self.desired.models
        state.absent = tuple(self.loads.reports())
        state.leaving = [each.supervisor for each in served if each.gone]
        state.supervisors = [each.supervisor for each in served if not each.gone]
        state.unmet = self._unmet()
        state.feed.report_changed()

    def _unmet(self) -> tuple[ModelProblem, ...]:
        plan = self.loads.found.plan if self.loads.found else Plan()
        there = NodeModels(
            engines=tuple(self._state.engines().values()),
            available=plan.available,
            denied=plan.denied,
            refused={id_: why for id_, (_, why) in self._refused.items()},
        )
        return unmet(self.desired.models, there)

    def tell_changes(self) -> None:
        """Report the absent engines and problems of which something has changed."""
        if self._unmet() != self._state.unmet:
            self.tell()
            return
        before = {each.id: each for each in self._state.absent}
        self._state.absent = tuple(self.loads.reports())
        for each in self._state.absent:
            if before.get(each.id) != each:
                self._state.feed.engine_changed(each.id)


def _named(planned: PlannedEngine, name: str) -> bool:
    return name in {planned.spec.model, planned.spec.variant}
