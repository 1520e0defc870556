"""Sends the probe to engines whose speed nobody has measured yet, below user traffic.

A probe takes one slot of an idle engine. It gives way as soon as a request has to wait:
what that request teaches is worth as much.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from balancer import calibration
from balancer.candidates import Candidate, EngineKey
from balancer.desk import Desk
from balancer.edit import edited
from balancer.lane import Lane, Timings
from edgeserve.errors import EdgeserveError, NodeLost
from edgeserve.relay.upstream import Upstream
from edgeserve.wire import REQUEST_HEADER, VARIANT_HEADER

log = logging.getLogger(__name__)

SPREAD_SECONDS = 0.5
"""Several balancers see an engine join at once; their probes should not collide."""

LOOK_SECONDS = 1.0
PROBE_SECONDS = 60.0
AGAIN_SECONDS = 10.0
"""After a probe that came to nothing."""

LEAST_OVERHEAD, MOST_OVERHEAD = 0.001, 0.5
"""Seconds that a request may spend on its way."""


@asynccontextmanager
async def calibrating(
    desk: Desk,
    upstream: Upstream,
    token: str | None,
    jitter: Callable[[], float] = random.random,
) -> AsyncGenerator[None]:
    """Probe engines for the length of the block. `jitter` is between 0 and 1."""
    async with asyncio.TaskGroup() as group:
        prober = _Prober(desk, upstream, token, jitter, group)
        desk.room.on_wait = prober.give_way
        looking = group.create_task(prober.look(), name="calibrating")
        try:
            yield
        finally:
            looking.cancel()
            prober.stop()


class _Prober:
    def __init__(
        self,
        desk: Desk,
        upstream: Upstream,
        token: str | None,
        jitter: Callable[[], float],
        group: asyncio.TaskGroup,
    ) -> None:
        self._desk = desk
        self._upstream = upstream
        self._headers = {"content-type": "application/json", REQUEST_HEADER: "probe"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._jitter = jitter
        self._group = group
        self._running: dict[EngineKey, asyncio.Task[None]] = {}
        self._not_before: dict[EngineKey, float] = {}

    async def look(self) -> None:
        """Probe whoever wants it, now and whenever the fleet has changed."""
        changed = asyncio.Event()
        self._desk.current.listen(changed.set)
        while True:
            changed.clear()
            for each in self._desk.current.candidates:
                if self._wants(each) and each.key not in self._running:
                    self._running[each.key] = self._group.create_task(self._run(each))
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await changed.wait()
            except TimeoutError:
                pass

    def give_way(self) -> None:
        """A request waits: leave it the slots, unless one that is known serves it too.

        Else a burst at the start would keep the slow ones from ever being measured, and
        send each a request to find out.
        """
        for key, task in self._running.items():
            if not self._known_beside(key):
                task.cancel()

    def stop(self) -> None:
        """End every probe."""
        for task in self._running.values():
            task.cancel()

    def _known_beside(self, key: EngineKey) -> bool:
        lanes = self._desk.predict.lanes
        mine = lanes.get(key)
        return mine is not None and any(
            each.learner.calibrated and each.model == mine.model
            for each in lanes.all()
            if each is not mine
        )

    def _wants(self, each: Candidate) -> bool:
        lane = self._desk.predict.lanes.get(each.key)
        return (
            lane is not None
            and not lane.learner.calibrated
            and each.barred is None
            and "completion" in each.engine.abilities
            and self._desk.ledger.busy(each.key) == 0
            and self._desk.room.waiting == 0
            and time.monotonic() >= self._not_before.get(each.key, 0.0)
        )

    async def _run(self, each: Candidate) -> None:
        try:
            await self._probe(each)
        finally:
            del self._running[each.key]

    async def _probe(self, each: Candidate) -> None:
        await asyncio.sleep(SPREAD_SECONDS * self._jitter())
        lane = self._desk.predict.lanes.get(each.key)
        if lane is None or not self._wants(each):
            return
        self._not_before[each.key] = time.monotonic() + AGAIN_SECONDS
        self._desk.ledger.take(each.key, 1)
        slot = self._desk.predict.lanes.probe(each.key)
        self._recount(each.key)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                began = time.monotonic()
                found = await self._asked(each, slot)
                self._learn(lane, found, time.monotonic() - began)
            del self._not_before[each.key]
        except (EdgeserveError, TimeoutError) as error:
            log.info("%s was not measured: %s", each.node, error)
        finally:
            self._desk.ledger.give_back(each.key, 1)
            self._desk.predict.lanes.probed(each.key)
            self._recount(each.key)
            self._desk.room.changed()

    def _recount(self, key: EngineKey) -> None:
        self._desk.predict.lanes.recount(key, time.monotonic())

    async def _asked(self, each: Candidate, slot: int | None) -> Timings:
        body = calibration.body(each.engine.variant)
        if slot is not None:
            body = edited(body, put={"id_slot": slot})
        headers = {**self._headers, VARIANT_HEADER: each.engine.id}
        async with self._upstream.ask(
            each.origin, "POST", calibration.ROUTE, headers, body
        ) as answer:
            said = await answer.read()
            found = calibration.timings(said)
            if answer.status != 200 or found is None:
                raise NodeLost(
                    f"its probe was answered {answer.status}: {said[:200]!r}"
                )
            return found

    def _learn(self, lane: Lane, found: Timings, seconds: float) -> None:
        """Take the probe for the truth, unless a request ran beside it."""
        learner = lane.learner
        if lane.jobs or learner.calibrated:
            return
        spent = (found.prompt_ms + found.predicted_ms) / 1000
        overhead = min(max(seconds - spent, LEAST_OVERHEAD), MOST_OVERHEAD)
        learner.guess = replace(learner.guess, overhead=overhead)
        learner.learn(calibration.sample(found))
        lane.stale = True
