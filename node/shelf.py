"""Shelf: carries out the plan and the orders, and follows the models folder.

The folder is looked at every two seconds. What arrives is planned beside the engines
that run, which are left alone; an engine whose files go or change finishes its requests
first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from edgeserve.config.settings import NodeSettings
from edgeserve.http.types import Upstream
from edgeserve.runtime.background import background, declared
from edgeserve.runtime.files import RepeatedFault
from edgeserve.runtime.tasks import first_of
from node.lifecycle.orders import Orders
from node.models.changes import FolderState, Listing, settled, step
from node.models.listing import look_at
from node.planning.plan import Beside, Plan
from node.planning.planner import PlannedEngine
from node.planning.prepare import Prepared, extended, prepared
from node.state import NodeState

log = logging.getLogger(__name__)

ENGINES = declared("engines")
SHELF = declared("shelf")

EVERY = 2.0
"""Seconds between two looks at the folder."""

GONE = "its file is gone; running requests finish"
REPLACED = "its file was replaced; it restarts after the running requests"


@asynccontextmanager
async def run_engines(
    state: NodeState, settings: NodeSettings, upstream: Upstream
) -> AsyncGenerator[Orders]:
    """Run every engine while the block runs, which starts before they are ready.

    Reading model files and trying llama.cpp takes seconds on a slow card, so it happens
    in the background. Yields what takes orders.
    """
    orders = Orders(state, settings, upstream)
    shelf = Shelf(state, settings, orders)
    async with background() as tasks:
        tasks.start(ENGINES, shelf.serve)
        tasks.start(SHELF, shelf.watch)
        yield orders


class Shelf:
    """The engines of a node. `serve` owns them; `watch` adds and removes some."""

    def __init__(
        self, state: NodeState, settings: NodeSettings, orders: Orders
    ) -> None:
        self._state = state
        self._settings = settings
        self._orders = orders
        self._running, self._loads = orders.running, orders.loads
        self._resting: set[str] = set()
        self._last = Listing()
        self._folder = FolderState()
        self._fault = ""
        self._faults = RepeatedFault(partial(log.warning, "%s"))

    async def serve(self) -> None:
        """Plan, and run what was planned until cancelled."""
        try:
            async with self._orders.lock:
                await self._look()
                self._folder = FolderState(self._last.files, self._last.unread)
                await self._plan()
            await asyncio.Event().wait()
        finally:
            async with self._orders.lock:
                self._orders.stale = True
                await self._running.stop_all()

    async def watch(self) -> None:
        """Follow the folder and the orders until cancelled."""
        while True:
            await self._pause()
            async with self._orders.lock:
                if self._loads.found is None:
                    continue  # the first plan is still to come
                changed = await self._settle()
                if last := await self._look():
                    before = self._folder
                    self._folder = settled(last, self._last, before)
                    self._orders.stale |= self._folder.differs(before)
                changed |= self._loads.outdated
                if changed and not self._orders.stale:
                    self._orders.stale = await self._loads.refresh()
                if self._orders.stale:
                    await self._plan()
                elif changed:
                    self._orders.tell()
                else:
                    await self._loads.look()
                    self._orders.tell_changes()

    async def _pause(self) -> None:
        """Wait for the next look, an order, or the end of a drain."""
        woken = self._orders.woken
        served = self._running.served
        retiring = [each for each in served if each.supervisor.retiring]
        await first_of(
            asyncio.sleep(EVERY), _set(woken), *(each.settles() for each in retiring)
        )
        woken.clear()

    async def _settle(self) -> bool:
        """Carry out what was decided; returns whether that has changed anything."""
        changed = await self._loads.collect()
        if self._state.draining:
            return changed  # what still runs is the last
        await self._orders.converge()
        changed |= await self._stop_retired()
        return await self._loads.advance(self._folder.signature) or changed

    async def _look(self) -> Listing | None:
        """Look at the folder; returns the look before, or None if it cannot be read."""
        last = self._last
        try:
            self._last = await asyncio.to_thread(look_at, self._settings)
        except OSError as error:
            where = self._settings.models_dir
            fault = f"cannot read the models folder {where}: {error.strerror}"
            self._faults.report(fault)
            if fault != self._fault:
                self._fault = fault
                self._tell()
            return None
        if self._fault:
            self._fault, self._orders.stale = "", True
            self._faults.ended()
        return last

    async def _plan(self) -> None:
        """Plan beside what runs; start what is new, retire what has changed."""
        kept, before = self._loads.planned, self._loads.found
        known = before.plan.problems if before else ()
        beside = Beside(
            kept,
            self._folder.arriving,
            frozenset(self._resting),
            self._orders.desired.wishes,
        )
        found = await asyncio.to_thread(self._prepared, beside)
        for problem in found.plan.problems:
            if problem not in known:
                log.warning("%s", problem)
        self._retire_changed(found.plan)
        for planned in found.plan.engines:
            if not any(planned is each for each in kept):
                if before:
                    log.info("%s: found in the models folder", planned.spec.id)
                await self._start(found, planned)
        self._orders.mark()
        self._loads.take(found, found.plan.absent)
        await self._loads.look()
        if self._settings.on_demand:
            self._resting = set(self._loads.absent)
        self._orders.stale = False
        self._tell()

    def _prepared(self, beside: Beside) -> Prepared:
        found, hardware = self._loads.found, self._running.hardware()
        if found is None or found.engine is None:
            return prepared(self._settings, hardware, beside=beside)
        return extended(found, self._settings, hardware, beside)

    def _retire_changed(self, plan: Plan) -> None:
        there = {each.path: self._folder.signature(each.files) for each in plan.models}
        for each in self._running.served:
            path, facts = each.planned.spec.path, each.planned.load.facts
            now = there.get(path)
            what = step(each.signature, facts.files, self._folder, now)
            each.gone |= what == "stop"
            if what == "keep" or each.supervisor.retiring:
                continue
            why = GONE if each.gone else REPLACED
            log.info("%s: %s", each.id, why)
            each.supervisor.retire(why)

    async def _stop_retired(self) -> bool:
        """Stop the engines that have finished; returns whether there were any."""
        over = [
            each
            for each in self._running.served
            if each.supervisor.retiring and each.settled
        ]
        for each in over:
            await self._running.stop(each)
            if each.leaves and not each.gone:
                self._resting.add(each.id)
                self._loads.absent[each.id] = each.planned
            self._orders.stale |= not (each.leaves and self._settings.on_demand)
        return bool(over)

    async def _start(self, found: Prepared, planned: PlannedEngine) -> None:
        model = next(e for e in found.plan.models if e.path == planned.spec.path)
        signature = self._folder.signature(model.files)
        await self._running.start(found, planned, signature)

    def _tell(self) -> None:
        """Report what is served, what could be, and what is in the way."""
        found = self._loads.found
        plan = found.plan if found else Plan()
        faults = (self._fault,) if self._fault else ()
        self._state.problems = tuple(dict.fromkeys((*plan.problems, *faults)))
        self._state.available = plan.available
        self._orders.tell()


async def _set(event: asyncio.Event) -> None:
    await event.wait()
