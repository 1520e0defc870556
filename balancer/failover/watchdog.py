"""Watchdog: look at all running attempts, and where else they could go.

Nothing is timed per event: now and then it looks whether there was one.
"""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf

from msgspec import structs

from balancer.failover.attempt_watchdog import (
    LATELY_SECONDS,
    UNLEARNED,
    AttemptWatchdog,
)
from balancer.failover.stall import ExpectedPace, RetryBudget
from balancer.fleet.engines import EngineKey
from balancer.routing.decision import RoutingRequest
from balancer.routing.filters import Filtered, filter_engines
from balancer.state import BalancerState
from edgeserve.runtime.background import declared, guarded
from edgeserve.runtime.clock import ActiveClock, Ticker

EVERY_SECONDS = 0.25

VIGIL = declared("progress watch", "timer")

SLOWEST = 4.0
"""The slowest of a hundred tokens, in mean times between two."""

APART_SECONDS = 0.05
"""How often to look whether a request has its first word."""


class Watchdog:
    """Ticks every vigil that is kept, and knows the prospects; see `Prospects`."""

    def __init__(self, state: BalancerState, awake: ActiveClock) -> None:
        self.budget = RetryBudget()
        self._state = state
        self._sweep = Ticker(EVERY_SECONDS)
        self._watchdogs = set[AttemptWatchdog]()
        self._awake = awake
        self.time = awake.time

    def keep(self, watchdog: AttemptWatchdog) -> None:
        """Begin."""
        if not self._watchdogs:
            self._sweep.add(self)
        self._watchdogs.add(watchdog)

    def alone(self, watchdog: AttemptWatchdog) -> bool:
        """Whether its engine was asked nothing else by us."""
        return all(
            each is watchdog or each.key != watchdog.key for each in self._watchdogs
        )

    async def apart(self, key: EngineKey) -> None:
        """Wait until no other request at which one has died might end this engine."""
        while any(  # noqa: ASYNC110 - rare, and first words are seen by looks as well
            each.struck and each.key == key and not each.speaks
            for each in self._watchdogs
        ):
            await asyncio.sleep(APART_SECONDS)

    def end(self, watchdog: AttemptWatchdog) -> None:
        """End."""
        watchdog.end()
        self._watchdogs.discard(watchdog)
        if not self._watchdogs:
            self._sweep.discard(self)

    def tick(self, now: float) -> None:
        """Look after everybody."""
        now = self.time()  # the sweep's clock goes on while this process stands still
        for watchdog in tuple(self._watchdogs):
            guarded(VIGIL, partial(watchdog.tick, now))

    def close(self) -> None:
        """End all."""
        self._sweep.stop()

    def pace(self, key: EngineKey) -> ExpectedPace:
        """See `Prospects`."""
        lane = self._state.predictive.fleet_model.get(key)
        if lane is None or not lane.learner.calibrated:
            return UNLEARNED
        # While others' prompts are read, a token waits for a whole batch.
        batch = lane.batch * lane.per_read
        return ExpectedPace(token=SLOWEST * lane.per_token + batch, batch=batch)

    def trusted(self, key: EngineKey) -> bool:
        """See `Prospects`."""
        return self._state.breakers.health(key).closed

    def elsewhere(self, need: RoutingRequest, key: EngineKey) -> float | None:
        """See `Prospects`."""
        lives = {e.life for e in self._state.current.candidates if e.key == key}
        return self._state.predictive.idle(
            structs.replace(need, tried=need.tried | lives)
        )

    def deserted(self, need: RoutingRequest, key: EngineKey) -> bool:
        """See `Prospects`."""
        current = self._state.current
        member = current.fleet.member(key[0])
        if member is not None and member.state not in {"suspect", "unreachable"}:
            return False
        others = [each for each in current.candidates if each.key != key]
        sifted = filter_engines(others, need)
        return isinstance(sifted, Filtered) and bool(sifted.open)

    def stirred(self, key: EngineKey) -> float:
        """See `Prospects`."""
        lane = self._state.predictive.fleet_model.get(key)
        here = [each for each in self._watchdogs if each.key == key]
        if lane is None or lane.foreign or any(each.hidden for each in here):
            return inf
        return max((each.progress.work for each in here), default=0.0)

    def stuck(self, key: EngineKey) -> bool:
        """See `Prospects`."""
        engine = self._state.breakers.engine(key)
        return engine is not None and engine.state == "stuck"

    def doubt(self, key: EngineKey) -> None:
        """See `Prospects`."""
        self._state.breakers.failed(key, "doubt")

    @property
    def budget_left(self) -> int:
        """See `Prospects`."""
        self.budget.in_flight = self._state.in_flight.inside
        return self.budget.left

    @property
    def woke(self) -> bool:
        """See `Prospects`."""
        return self._awake.woke(LATELY_SECONDS)
