"""Load planner: how an engine is launched now, and which ones leave for it.

Reads the results of tuning and may run llama.cpp's tools: call it off the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

from edgeserve.config.settings import NodeSettings
from edgeserve.models.memory import size
from edgeserve.reports.hardware import Hardware
from node.lifecycle.eviction import Resident, Shortage, evicted
from node.lifecycle.refusals import DoesNotFit, EnginesBusy
from node.models.selection import RequestedModel, Wishes
from node.planning.absent import (
    NewPlanner,
    absent_engines,
    pinned,
    placed,
    whole,
)
from node.planning.fit import Fitted, leaves
from node.planning.planner import PlannedEngine, Planner, own_gpus
from node.planning.prepare import Prepared, finished
from node.planning.tunings import Tunings, tunings_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An engine in memory: how it was planned, and what eviction has to know."""

    planned: PlannedEngine
    resident: Resident


@dataclass(frozen=True, kw_only=True)
class Loading:
    """A load that was decided: its engine, and the ids of those that leave first."""

    prepared: Prepared
    planned: PlannedEngine
    leaving: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LoadPlanner:
    """Plans loads beside what is in the memory of this machine.

    `hardware` has the memory that would be free without our engines.
    """

    found: Prepared
    settings: NodeSettings
    hardware: Hardware
    loaded: tuple[Loaded, ...]
    wishes: Wishes

    def absent(self) -> tuple[PlannedEngine, ...]:
        """Plan anew what does not run, but would if it were asked for."""
        others = self.found.plan.others
        found = absent_engines(self._planning(), self._running, others, self.wishes)
        return found.engines

    def evicts(self, absent: Iterable[PlannedEngine]) -> dict[str, tuple[str, ...]]:
        """Return which engines would leave for each, once they can."""
        residents = tuple(replace(each, held=False) for each in self._residents)
        planner = Planner(self.settings, self.hardware, self.found.devices, Tunings())
        planner.keep(self._running)
        return {
            each.spec.id: evicted(residents, _short(planner, each), drain=True).ids
            for each in absent
        }

    def load(self, planned: PlannedEngine, *, drain: bool) -> Loading:
        """Decide how to load an engine now. Raises DoesNotFit, EnginesBusy."""
        new, id_, path = self._planning(), planned.spec.id, planned.spec.path
        models = tuple(each for each in self.found.plan.models if each.path == path)
        request = RequestedModel(models, planned.spec.role, pinned=planned.pinned)
        here = placed(new, self._running, request).engines.get(id_)
        if whole(here):
            return self._loading(here)
        alone = placed(new, pinned(self._running, self.wishes), request)
        best = alone.engines.get(id_)
        if best is None:
            raise DoesNotFit(id_, alone.refused.get(path, "its file has gone"))
        leaving = self._leaving(new, best, drain=drain)
        if leaving is None:
            return self._loading(here, refused=id_)
        kept = [e for e in self._running if e.spec.id not in leaving]
        there = placed(new, kept, request).engines.get(id_)
        return self._loading(there, leaving, refused=id_)

    def leaving(self, planned: PlannedEngine) -> tuple[str, ...] | None:
        """Return the ids of idle engines that leave; None if that is not enough."""
        return self._leaving(self._planning(), planned, drain=False)

    def _leaving(
        self, new: NewPlanner, best: PlannedEngine, *, drain: bool
    ) -> tuple[str, ...] | None:
        """Return the ids of what leaves for an engine; None if that is not enough."""
        planner = new()
        planner.keep(self._running)
        residents = self._residents
        choice = evicted(residents, _short(planner, best), drain=drain)
        if choice.verdict == "busy":
            busy = (e.id for e in residents if e.held or (e.busy and not e.stays))
            raise EnginesBusy(best.spec.id, busy)
        return None if choice.verdict == "never" else choice.ids

    def joined(self, planned: PlannedEngine) -> Loading:
        """Decide how the head of a group loads now. Raises DoesNotFit, EnginesBusy."""
        others = [e for e in self.loaded if e.planned.spec.id != planned.spec.id]
        here = replace(self, loaded=tuple(others))
        leaving = here.leaving(planned)
        if leaving is None:
            free = size(max(0, self.hardware.memory.available))
            why = f"this machine's share needs {planned.fitted.need.arithmetic()}"
            raise DoesNotFit(planned.spec.id, f"{why}; {free} would be free")
        ends = tuple(e.planned.spec.id for e in self.loaded if e not in others)
        kept = tuple(e.planned for e in others if e.planned.spec.id not in leaving)
        plan = replace(self.found.plan, engines=(*kept, planned))
        return Loading(
            prepared=replace(self.found, plan=plan),
            planned=planned,
            leaving=(*leaving, *ends),
        )

    def hosted(self, id_: str, fitted: Fitted) -> tuple[str, ...]:
        """Return which engines leave for a worker. Raises DoesNotFit, EnginesBusy."""
        planner = self._planning()()
        planner.keep(self._running)
        memory, gpu_memory = planner.lacks(fitted)
        short = Shortage(memory=memory, gpu_memory=gpu_memory)
        choice = evicted(self._residents, short)
        if choice.verdict == "busy":
            busy = (e.id for e in self._residents if e.held or (e.busy and not e.stays))
            raise EnginesBusy(id_, busy)
        if choice.verdict == "never":
            wanted = fitted.memory + fitted.gpu_memory
            why = f"a worker needs {size(wanted)}; {leaves(planner.room)}"
            raise DoesNotFit(id_, why)
        return choice.ids

    def _loading(
        self,
        planned: PlannedEngine | None,
        leaving: tuple[str, ...] = (),
        refused: str = "",
    ) -> Loading:
        if planned is None:
            raise DoesNotFit(refused, "the memory is taken by pinned engines")
        if missing := planned.tuning and planned.tuning.missing(planned.load.drafts):
            log.warning("%s", missing)
        kept = tuple(e for e in self._running if e.spec.id not in leaving)
        done = finished(self.found, kept, planned, self.settings, self.hardware)
        return Loading(prepared=done[0], planned=done[1], leaving=leaving)

    def _planning(self) -> NewPlanner:
        engine, devices = self.found.engine, self.found.devices
        tunings = Tunings()
        if engine is not None:
            tunings = tunings_of(engine, self.hardware, devices, self.settings)
        models = self.found.plan.models
        return partial(
            Planner, self.settings, self.hardware, devices, tunings, models=models
        )

    @property
    def _running(self) -> tuple[PlannedEngine, ...]:
        return tuple(each.planned for each in self.loaded)

    @property
    def _residents(self) -> tuple[Resident, ...]:
        return tuple(each.resident for each in self.loaded)


def _short(planner: Planner, planned: PlannedEngine) -> Shortage:
    """Return what is short for an engine beside those that the planner keeps."""
    memory, gpu = planner.short(planned)
    gpus = own_gpus(planned.spec.launch)
    return Shortage(memory=memory, gpu_memory=gpu, gpus=gpus)
