"""Shelf: runs an engine for each model of the plan, and follows the models folder.

The folder is looked at every two seconds. What arrives is planned beside the engines
that run, which are left alone; an engine whose files go or change finishes its requests
first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import msgspec

from edgeserve.config.settings import NodeSettings
from edgeserve.http.types import Upstream
from edgeserve.runtime.background import background, declared
from edgeserve.runtime.files import RepeatedFault
from edgeserve.runtime.tasks import first_of
from edgeserve.wire import Hardware
from node.hardware.sample import memory
from node.models.changes import FolderState, Listing, Signature, settled, step
from node.models.listing import look_at
from node.planning.plan import Beside, Plan, PlannedEngine
from node.planning.prepare import Prepared, extended, fallbacks_of, prepared
from node.state import NodeState
from node.supervision.fallbacks import StartupFallbacks
from node.supervision.supervisor import Supervisor

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
) -> AsyncGenerator[None]:
    """Run every engine while the block runs, which starts before they are ready.

    Reading model files and trying llama.cpp takes seconds on a slow card, so it happens
    in the background.
    """
    shelf = Shelf(state, settings, upstream)
    async with background() as tasks:
        tasks.start(ENGINES, shelf.serve)
        tasks.start(SHELF, shelf.watch)
        yield


@dataclass(eq=False, kw_only=True)
class Served:
    """One engine that runs, what it was planned as, and the files it started with."""

    planned: PlannedEngine
    supervisor: Supervisor
    signature: Signature
    stack: AsyncExitStack
    gone: bool = False


class Shelf:
    """The engines of a node. `serve` owns them; `watch` adds and removes some."""

    def __init__(
        self, state: NodeState, settings: NodeSettings, upstream: Upstream
    ) -> None:
        self._state = state
        self._settings = settings
        self._upstream = upstream
        self._lock = asyncio.Lock()
        self._served: list[Served] = []
        self._found: Prepared | None = None
        self._last = Listing()
        self._folder = FolderState()
        self._stale = True
        self._fault = ""
        self._faults = RepeatedFault(partial(log.warning, "%s"))

    async def serve(self) -> None:
        """Plan, and run what was planned until cancelled."""
        try:
            async with self._lock:
                await self._look()
                self._folder = FolderState(self._last.files, self._last.unread)
                await self._plan()
            await asyncio.Event().wait()
        finally:
            async with self._lock, AsyncExitStack() as stack:
                for each in self._served:
                    stack.push_async_callback(each.stack.aclose)
                self._served, self._stale = [], True

    async def watch(self) -> None:
        """Follow the folder until cancelled."""
        while True:
            retiring = (s for each in self._served if (s := each.supervisor).retiring)
            await first_of(asyncio.sleep(EVERY), *(each.drained() for each in retiring))
            async with self._lock:
                if self._found is None:
                    continue  # the first plan is still to come
                self._stale |= await self._stop_retired()
                if last := await self._look():
                    before = self._folder
                    self._folder = settled(last, self._last, before)
                    self._stale |= self._folder.differs(before)
                if self._stale:
                    await self._plan()

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
            self._fault, self._stale = "", True
            self._faults.ended()
        return last

    async def _plan(self) -> None:
        """Plan beside what runs; start what is new, retire what has changed."""
        kept = tuple(each.planned for each in self._served)
        before = self._found
        known = before.plan.problems if before else ()
        beside = Beside(kept, self._folder.arriving)
        found = self._found = await asyncio.to_thread(self._prepared, beside)
        for problem in found.plan.problems:
            if problem not in known:
                log.warning("%s", problem)
        self._retire_changed(found.plan)
        for planned in found.plan.engines:
            if not any(planned is each for each in kept):
                if before:
                    log.info("%s: found in the models folder", planned.spec.id)
                await self._start(found, planned)
        self._stale = False
        self._tell()

    def _prepared(self, beside: Beside) -> Prepared:
        hardware = self._state.hardware.latest
        if self._found is None or self._found.engine is None:
            return prepared(self._settings, hardware, beside=beside)
        return extended(self._found, self._settings, self._without_engines(), beside)

    def _without_engines(self) -> Hardware:
        """Return the hardware with the memory that our engines have taken so far."""
        now = memory()
        ours = sum(
            min(each.supervisor.held(), each.planned.fitted.memory)
            for each in self._served
        )
        free = msgspec.structs.replace(now, available=now.available + ours)
        return msgspec.structs.replace(self._state.hardware.latest, memory=free)

    def _retire_changed(self, plan: Plan) -> None:
        there = {each.path: self._folder.signature(each.files) for each in plan.models}
        for each in self._served:
            path, facts = each.planned.spec.path, each.planned.load.facts
            now = there.get(path)
            what = step(each.signature, facts.files, self._folder, now)
            if what == "keep" or each.supervisor.retiring:
                continue
            each.gone = what == "stop"
            why = GONE if each.gone else REPLACED
            log.info("%s: %s", each.planned.spec.id, why)
            each.supervisor.retire(why)

    async def _stop_retired(self) -> bool:
        """Stop the engines that have finished; returns whether there were any."""
        over = [e for e in self._served if e.supervisor.retiring and e.supervisor.idle]
        for each in over:
            await each.stack.aclose()
            self._served.remove(each)
        return bool(over)

    async def _start(self, found: Prepared, planned: PlannedEngine) -> None:
        spec, tuning = planned.spec, planned.tuning
        if tuning and (planned.fitted.tuned or tuning.failed):
            log.info("%s: %s", spec.id, tuning.summary)
        if planned.instead:
            log.warning("%s: %s", spec.id, planned.instead)
        latest = self._state.hardware.latest
        fallbacks = fallbacks_of(found, planned, self._settings, latest)
        supervisor = Supervisor(
            engine=found.engine_of(planned),
            spec=spec,
            settings=self._settings,
            upstream=self._upstream,
            changed=partial(self._state.feed.engine_changed, spec.id),
            fallbacks=StartupFallbacks(fallbacks, planned.instead or None),
        )
        stack = AsyncExitStack()
        await stack.enter_async_context(supervisor.running())
        model = next(e for e in found.plan.models if e.path == spec.path)
        self._served.append(
            Served(
                planned=planned,
                supervisor=supervisor,
                signature=self._folder.signature(model.files),
                stack=stack,
            )
        )

    def _tell(self) -> None:
        """Report what is served, what could be, and what is in the way."""
        plan = self._found.plan if self._found else Plan()
        faults = (self._fault,) if self._fault else ()
        self._state.problems = tuple(dict.fromkeys((*plan.problems, *faults)))
        self._state.available = plan.available
        self._state.leaving = [e.supervisor for e in self._served if e.gone]
        self._state.serve([e.supervisor for e in self._served if not e.gone])
