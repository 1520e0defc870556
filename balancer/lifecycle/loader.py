"""Loader: has nodes load the engines that waiting requests need.

It looks when a request has to wait, when the fleet changes, and at intervals while
something waits. What it orders is remembered until the node shows what became of it, so
that many requests make one load.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from math import ceil

from balancer.discovery.node_client import NodeClient
from balancer.fleet.engines import ASLEEP, EngineCandidate, EngineKey
from balancer.lifecycle.demand import Demand, demands
from balancer.lifecycle.events import LifecycleEvents
from balancer.lifecycle.groups.forming import GroupForming
from balancer.lifecycle.ledger import Clock, LoadLedger
from balancer.lifecycle.orders import LATER_SECONDS, Refused, TryLater, send_order
from balancer.lifecycle.placement import (
    Load,
    Outlook,
    Plan,
    Unload,
    drain_seconds,
    plan,
    wanted,
)
from balancer.lifecycle.swap import Resident, usual_quantum
from balancer.state import BalancerState
from edgeserve.errors import EdgeserveError
from edgeserve.runtime.background import Tasks, background, declared

LOADER = declared("loader")
ORDER = declared("load order", "never")

LEAST_PAUSE = 0.02
"""Seconds between two looks, at least; and ten times what one takes."""

LOOK_SECONDS, CALM_SECONDS = 0.25, 1.0
"""Longest pause between two looks, while something waits and else."""

GROUP_IDLE_SECONDS = 2.0
"""A group that has no request for so long leaves for another model."""

UNLOAD_SECONDS = 10.0
"""So long an engine that was told to leave is not told again."""

Wishes = Callable[[float], Iterable[Load | Unload]]
"""Returns what else should be loaded or unloaded, given the time of the queue's clock.
What waits comes first; a wish that was not followed is to be wished again."""


class ModelLoading(EdgeserveError):
    """The model is not loaded, and will not be before the caller's deadline."""

    status = 503
    code = "model_loading"

    def __init__(self, model: str, seconds: float) -> None:
        self.retry_after = max(1, ceil(seconds))
        super().__init__(
            f"{model or 'the model'} is not loaded; its first token would come in"
            f" {seconds:.1f} s, after the deadline; come back in {self.retry_after} s"
        )


@asynccontextmanager
async def loading(
    state: BalancerState, nodes: NodeClient, patience: float
) -> AsyncGenerator[Loader]:
    """Load engines on demand for the length of the block.

    `patience`: most seconds that a request waits in the queue.
    """
    async with background() as tasks:
        loader = Loader(state, nodes, tasks, patience)
        tasks.start(LOADER, loader.run)
        yield loader


class Loader:
    """Plans and orders loads. `wishes` are asked at each look; append to them."""

    def __init__(
        self,
        state: BalancerState,
        nodes: NodeClient,
        tasks: Tasks,
        patience: float,
        clock: Clock = time.monotonic,
    ) -> None:
        self.events = LifecycleEvents()
        self.wishes: list[Wishes] = []
        self.groups = GroupForming(state=state, nodes=nodes, over=self._is_over)
        self._state = state
        self._nodes = nodes
        self._tasks = tasks
        self._patience = patience
        self._clock = clock
        self._ledger = LoadLedger(self.events, state.load_faults, state.current.say)
        self._wake = asyncio.Event()
        state.queue.grows.subscribe(self._wake.set)
        state.current.listen(self._changed)

    async def run(self) -> None:
        """Look, now and whenever something has changed."""
        while True:
            self._wake.clear()
            began = self._clock()
            self.look(began)
            await asyncio.sleep(max(LEAST_PAUSE, 10 * (self._clock() - began)))
            waits = self._state.queue.waiting
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if waits else CALM_SECONDS):
                    await self._wake.wait()

    def look(self, now: float) -> None:
        """Order what waiting requests need, then what else is wished for."""
        self._state.load_faults.tick()
        self.groups.refresh()
        up = self._follow(now)
        candidates = self._state.current.candidates
        if any(each.engine.state in LACKING for each in candidates):
            self._serve_demand(candidates, up, now)
        for wishes in self.wishes:
            for wish in wishes(now):
                self.order(wish, now)

    def _changed(self) -> None:
        """Take in a change of the fleet: soon, or now where a load is going on.

        One that fails at once may be over at the next look.
        """
        self._wake.set()
        if self._ledger.active:
            self._follow(self._clock())

    def _follow(self, now: float) -> frozenset[str]:
        """Take in what the nodes report; returns the ids of those that are up."""
        current = self._state.current
        up = frozenset(each.id for each in current.fleet.nodes if each.state == "up")
        self._ledger.follow(current.candidates, up, now)
        return up

    def order(self, wish: Load | Unload, now: float) -> bool:
        """Send a node an order; False where it has one, or is not to be asked now."""
        if wish.to.unavailable == ASLEEP:
            return False
        key, ledger = wish.to.key, self._ledger
        asked = {node for node, _ in ledger.ordered}
        if key in ledger.held() or key[0] in asked:
            return False
        if isinstance(wish, Load):
            ledger.order(wish, now)
        else:
            ledger.hold(key, now + UNLOAD_SECONDS)
        self._tasks.start(ORDER, partial(self._send, wish), wish.to.node)
        return True

    def _serve_demand(
        self, candidates: Sequence[EngineCandidate], up: frozenset[str], now: float
    ) -> None:
        waiting = demands(self._state.queue.requests, candidates)
        for demand in waiting:
            found = plan(demand, self._outlook(candidates, waiting, up, now))
            if found.load is not None:
                self.order(found.load, now)
            self._refuse_late(demand, found, now)

    def _outlook(
        self,
        candidates: Sequence[EngineCandidate],
        waiting: Sequence[Demand],
        up: frozenset[str],
        now: float,
    ) -> Outlook:
        engines = {each.key: each for each in candidates}
        ledger = self._ledger
        return Outlook(
            now=now,
            engines=engines,
            up=up,
            ordered={
                key: max(0.0, each.ready_at - now)
                for key, each in ledger.ordered.items()
            },
            held=ledger.held(),
            busy=ledger.busy(),
            resident=lambda key: self._resident(engines[key], waiting, now),
            speed=self._state.predictive.fleet_model.speed,
            patience=self._patience,
        )

    def _resident(
        self, to: EngineCandidate, waiting: Sequence[Demand], now: float
    ) -> Resident:
        models = self._state.predictive.fleet_model
        return Resident(
            to=to,
            busy=self._runs(to.key),
            wanted=wanted(waiting, to.key),
            worked=models.worked_at(to.key),
            loaded=self._ledger.loaded_at(to, now),
            drains=drain_seconds(models.get(to.key), now),
        )

    def _runs(self, key: EngineKey) -> bool:
        """Whether an engine has requests; a slot that a breaker reserves has none."""
        taken = self._state.slot_counts.of(key)
        return taken.busy > taken.reserved

    def _is_over(self, group: EngineCandidate) -> bool:
        """Whether a group is idle, or has served for as long as its turn is."""
        now = self._clock()
        worked = self._state.predictive.fleet_model.worked_at(group.key)
        if not self._runs(group.key) and now - worked >= GROUP_IDLE_SECONDS:
            return True
        turn = usual_quantum(group.engine.load_seconds)
        return now - self._ledger.loaded_at(group, now) >= turn

    def _refuse_late(self, demand: Demand, found: Plan, now: float) -> None:
        """Refuse requests that would get their first token after their deadline."""
        if found.seconds is None:
            return
        for request in demand.requests:
            deadline = request.routing.deadline
            if deadline is not None and now + found.seconds > deadline:
                error = ModelLoading(request.routing.model, found.seconds)
                self._state.queue.refuse(request, error)

    async def _send(self, wish: Load | Unload) -> None:
        """Send an order, and note where the node does not take it."""
        if wish.to.engine.group:
            outcome = await self.groups.send(wish)
        else:
            outcome = await send_order(self._nodes, wish)
        short = isinstance(outcome, Refused) and outcome.short
        if short and await self.groups.makes_room({wish.to.node_id}):
            outcome = TryLater(LATER_SECONDS)
        match outcome:
            case TryLater(seconds, busy):
                until = self._clock() + seconds
                self._ledger.hold(wish.to.key, until, busy=busy)
            case Refused(why) if isinstance(wish, Load):
                self._ledger.refused(wish.to, why)
            case _:
                pass
        if outcome is not None:
            self._wake.set()


LACKING = frozenset(("absent", "loading", "leaving"))
"""States of engines that requests may wait for."""
