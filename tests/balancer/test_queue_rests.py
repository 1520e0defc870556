"""The queue leaves the processor to others where a look at it takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from balancer.fleet.engines import EngineCandidate
from balancer.fleet.slot_counts import SlotCounts
from balancer.queue import LONG_SECONDS, RequestQueue
from balancer.routing.least_busy import LeastBusy
from balancer.routing.queued_request import QueuedRequest, Settled
from tests.balancer.building import Holder, a_candidate, a_request
from tests.fakes.reports import an_engine
from tests.patience import PATIENCE


class SlowPolicy(LeastBusy):
    """A policy whose looks take some time by its own clock."""

    def __init__(self, seconds: float, *able: EngineCandidate) -> None:
        self.slot_counts = SlotCounts()
        self.slot_counts.update(able)
        super().__init__(lambda: able, self.slot_counts)
        self.seconds = seconds
        self.now, self.looks = 0.0, 0

    def assign(self, waiting: Collection[QueuedRequest], now: float) -> list[Settled]:
        """Assign, and let the time pass."""
        self.looks += 1
        self.now += self.seconds
        return super().assign(waiting, now)


async def waiting_at(policy: SlowPolicy, count: int) -> tuple[RequestQueue, Holder]:
    """Return a queue in which so many requests wait for the one slot that is held."""

    def clock() -> float:
        return policy.now

    queue = RequestQueue(policy, limit=100, seconds=PATIENCE, clock=clock, spent=clock)
    first = await Holder(queue, a_request()).held()
    for _ in range(count):
        Holder(queue, a_request())
    while queue.waiting < count:
        await asyncio.sleep(0)
    return queue, first


async def test_changes_after_a_long_look_are_looked_at_once_after_a_rest() -> None:
    policy = SlowPolicy(4 * LONG_SECONDS, a_candidate(engine=an_engine(slots=1)))
    queue, first = await waiting_at(policy, 20)
    before = policy.looks

    for _ in range(50):
        queue.changed()
    await first.done()
    assert (policy.looks, queue.waiting) == (before, 20)
    async with asyncio.timeout(PATIENCE):
        while queue.waiting == 20:
            await asyncio.sleep(0.001)

    assert policy.looks == before + 1


async def test_after_a_short_look_each_change_is_looked_at_at_once() -> None:
    policy = SlowPolicy(LONG_SECONDS / 2, a_candidate(engine=an_engine(slots=1)))
    queue, first = await waiting_at(policy, 20)
    before = policy.looks

    queue.changed()
    await first.done()

    assert policy.looks == before + 2
    assert queue.waiting == 19


async def test_a_request_at_a_full_queue_is_looked_at_even_in_a_rest() -> None:
    one = a_candidate(engine=an_engine(slots=1))
    other = a_candidate("nuc", an_engine("other:Q4_1", slots=1))
    policy = SlowPolicy(4 * LONG_SECONDS, one, other)
    queue, _ = await waiting_at(policy, 100)

    async with queue.claim(a_request("other"), lambda _: None) as send:
        assert send.to.node == "nuc"
