"""Loads: what is absent, what waits for others to leave, what has failed to load."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeserve.config.settings import NodeSettings
from edgeserve.runtime.tasks import in_thread
from edgeserve.wire import EngineReport, EngineState
from node.lifecycle.eviction import Resident
from node.lifecycle.load_planner import Loaded, Loading, LoadPlanner
from node.lifecycle.load_times import LoadTimes
from node.lifecycle.refusals import LoadFailed
from node.lifecycle.running import RunningEngines, Served
from node.models.changes import Signature
from node.models.selection import Wishes
from node.planning.planner import PlannedEngine, own_gpus
from node.planning.prepare import Prepared
from node.supervision.report import report_of

log = logging.getLogger(__name__)

REFRESH_SECONDS = 10.0
"""What is absent is planned anew so often, as other programs use memory, too."""

FIRST_PAUSE, LONGEST_PAUSE = 30.0, 600.0
"""Seconds before an engine that failed to load is loaded again: 30, 60, … 600."""

Signing = Callable[[Collection[Path]], Signature]
"""Returns the signature of the files that an engine starts with."""


@dataclass(frozen=True)
class LoadFailure:
    """A load that failed: why, how often in a row, and until when it is not tried."""

    why: str
    times: int
    until: float

    @classmethod
    def after(cls, last: LoadFailure | None, why: str, now: float) -> LoadFailure:
        """Return the failure that follows another one, or none."""
        times = last.times + 1 if last else 1
        pause = min(FIRST_PAUSE * 2.0 ** (times - 1), LONGEST_PAUSE)
        return cls(why, times, now + pause)


class Loads:
    """The engines that do not run. The methods are called under the shelf's lock."""

    def __init__(
        self,
        settings: NodeSettings,
        running: RunningEngines,
        times: LoadTimes,
        wishes: Callable[[], Wishes],
        clock: Callable[[], float],
    ) -> None:
        self.found: Prepared | None = None
        self.absent: dict[str, PlannedEngine] = {}
        self.pending: dict[str, Loading] = {}
        self.failures: dict[str, LoadFailure] = {}
        self._settings = settings
        self._running = running
        self._times = times
        self._wishes = wishes
        self._clock = clock
        self._evicts: dict[str, tuple[str, ...]] = {}
        self._refreshed = clock()

    @property
    def planned(self) -> tuple[PlannedEngine, ...]:
        """What runs and what will run soon, as it was planned."""
        waiting = (each.planned for each in self.pending.values())
        return (*self._running.planned, *waiting)

    def take(self, found: Prepared, absent: Sequence[PlannedEngine]) -> None:
        """Take in a new plan; forget what is not there any more."""
        there = {each.path: each.facts.file_bytes for each in found.plan.models}
        self.found = found
        self.pending = {
            id_: each
            for id_, each in self.pending.items()
            if there.get(each.planned.spec.path) == each.planned.load.facts.file_bytes
        }
        self._rest(absent)

    async def refresh(self) -> bool:
        """Plan what is absent anew; returns whether other engines are than before."""
        before = set(self.absent)
        self._rest(await asyncio.to_thread(lambda: self.planner().absent()))
        await self.look()
        self._refreshed = self._clock()
        return before != self.absent.keys()

    @property
    def outdated(self) -> bool:
        """Whether other programs may have taken or freed memory meanwhile."""
        return self._clock() - self._refreshed > REFRESH_SECONDS

    async def look(self) -> None:
        """See what would leave for each."""
        if self.found is not None and self.absent:
            absent = tuple(self.absent.values())
            self._evicts = await asyncio.to_thread(
                lambda: self.planner().evicts(absent)
            )

    async def begin(self, id_: str, *, drain: bool, why: str) -> None:
        """Load an absent engine as soon as what is in its way has left.

        Raises DoesNotFit, EnginesBusy, LoadFailed.
        """
        self.check(id_)
        planned = self.absent[id_]
        found = await asyncio.to_thread(
            lambda: self.planner().load(planned, drain=drain)
        )
        self._begun(found, why)
        del self.absent[id_]

    async def join(self, planned: PlannedEngine, why: str) -> None:
        """Load the head of a group in the same way; another group like it ends.

        Raises DoesNotFit, EnginesBusy.
        """
        found = await asyncio.to_thread(lambda: self.planner().joined(planned))
        self._begun(found, why)

    def _begun(self, found: Loading, why: str) -> None:
        id_ = found.planned.spec.id
        log.info("%s: loads%s", id_, f": {why}" if why else "")
        for each in self._running.served:
            if each.id in found.leaving and not each.supervisor.retiring:
                each.leave(f"it leaves, as {id_} needs its memory")
                each.leaves_for = id_
        self.pending[id_] = found

    def cancel(self, id_: str) -> None:
        """Withdraw a load that has not begun; what should leave for it may stay."""
        planned = self.pending.pop(id_).planned
        if planned.group is None:
            self.absent[id_] = planned
        for each in self._running.served:
            if each.leaves and each.leaves_for == id_ and not self.needs(each.id):
                each.stay()

    def needs(self, id_: str) -> bool:
        """Whether a load, or a worker, waits until an engine has left."""
        awaited = any(id_ in each.leaving for each in self.pending.values())
        return awaited or self._running.workers.need(id_)

    async def advance(self, signature: Signing) -> bool:
        """Start what has room by now; returns whether there was something."""
        there = {each.id for each in self._running.served}
        ready = [
            each
            for id_, each in self.pending.items()
            if id_ not in there and there.isdisjoint(each.leaving)
        ]
        for each in ready:
            planned, models = each.planned, each.prepared.plan.models
            del self.pending[planned.spec.id]
            model = next(m for m in models if m.path == planned.spec.path)
            signed = signature(model.files)
            ordered = planned.group is None  # a group may start until it is dissolved
            await self._running.start(each.prepared, planned, signed, ordered=ordered)
        return bool(ready)

    async def collect(self) -> bool:
        """Note which loads have ended; returns whether one has failed."""
        news, failed = False, False
        for each in tuple(self._running.served):
            taken = each.supervisor.load.taken
            if taken is not None and taken != each.taken:
                each.taken = taken
                self.failures.pop(each.id, None)
                news |= self._times.take(each.planned, taken)
            elif (why := each.failed) is not None:
                failed = True
                await self._running.stop(each)
                self._fail(each, why)
        if news:
            await in_thread(self._times.save)
        return failed

    def _fail(self, served: Served, why: str) -> None:
        id_, last = served.id, self.failures.get(served.id)
        failure = LoadFailure.after(last, why, self._clock())
        log.warning("%s: failed to load: %s", id_, why)
        self.failures[id_] = failure
        self.absent[id_] = served.planned

    def check(self, id_: str) -> None:
        """Refuse what failed to load a short while ago. Raises LoadFailed."""
        failure = self.failures.get(id_)
        left = failure.until - self._clock() if failure else 0.0
        if failure and left > 0:
            raise LoadFailed(id_, failure.why, left)

    def _rest(self, absent: Sequence[PlannedEngine]) -> None:
        """Replace what is absent."""
        taken = {each.spec.id for each in self.planned}
        before = self.absent
        self.absent = {e.spec.id: e for e in absent if e.spec.id not in taken}
        for id_, each in self.absent.items():
            old = before.get(id_, each)
            if old.spec.created != each.spec.created:
                self.failures.pop(id_, None)  # another file may load
            elif old.pinned and not each.pinned:
                self.absent[id_] = replace(each, pinned=True)
        for id_ in self.failures.keys() - self.absent.keys() - taken:
            del self.failures[id_]

    def planner(self) -> LoadPlanner:
        """Plan with the memory of now; asks the system, so call it in a thread."""
        assert self.found is not None  # noqa: S101 - orders come after the first plan
        waiting = (
            Loaded(planned=each.planned, resident=_waiting(each.planned))
            for each in self.pending.values()
        )
        return LoadPlanner(
            found=self._running.workers.beside(self.found),
            settings=self._running.workers.within(self._settings),
            hardware=self._running.hardware(),
            loaded=(*self._running.loaded, *waiting),
            wishes=self._wishes(),
        )

    def reports(self) -> Iterator[EngineReport]:
        """Report what waits for its memory, and what loads when it is asked for."""
        absent = self.absent if self._settings.on_demand else ()
        yield from (self.report(id_) for id_ in (*self.pending, *absent))

    def report(self, id_: str) -> EngineReport:
        """Report one of these."""
        waiting = self.pending.get(id_)
        if waiting is not None:
            there = [name for name in waiting.leaving if self._running.find(name)]
            why = f"waits until {', '.join(there)} has left" if there else "loads"
            return self._report(waiting.planned, "loading", why, progress=0.0)
        planned, failure = self.absent[id_], self.failures.get(id_)
        if failure and failure.until > self._clock():
            return self._report(planned, "failed", failure.why)
        evicts = self._evicts.get(id_, ())
        return self._report(planned, "absent", self._how(planned), evicts=evicts)

    def _how(self, planned: PlannedEngine) -> str:
        seconds = self._times.seconds(planned)
        if self._times.measured(planned):
            return f"loads when it is asked for; its last load took {seconds:.3g} s"
        return (
            f"loads when it is asked for, in some {seconds:.2g} s by the size of its"
            " file"
        )

    def _report(
        self, planned: PlannedEngine, state: EngineState, why: str, **more: Any
    ) -> EngineReport:
        assert self.found is not None  # noqa: S101 - without one nothing is planned
        engine, spec = self.found.engine_of(planned), planned.spec
        return report_of(
            spec,
            state,
            engine.kind,
            reason=why,
            build=engine.build,
            epoch=self._running.epochs.get(spec.id, 0),
            load_seconds=round(self._times.seconds(planned), 3),
            pinned=planned.pinned or self._wishes().pins(spec.model, spec.variant),
            group=planned.members,
            **more,
        )


def _waiting(planned: PlannedEngine) -> Resident:
    """Return a load that has not begun, as other loads see it."""
    fitted = planned.fitted
    return Resident(
        id=planned.spec.id,
        memory=fitted.memory,
        gpu_memory=fitted.gpu_memory,
        gpus=own_gpus(planned.spec.launch),
        stays=planned.pinned,
        held=True,
    )
