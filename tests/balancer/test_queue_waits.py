"""A request that waits depends on no single event, and not on one engine for ever."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import pytest

from balancer.fleet.engines import EngineCandidate
from balancer.fleet.slot_counts import SlotCounts
from balancer.queue import RequestQueue
from balancer.routing.least_busy import LeastBusy
from balancer.routing.queued_request import QueuedRequest, Settled
from tests.balancer.building import Holder, a_candidate, a_request
from tests.balancer.test_queue import Setup, settle
from tests.balancer.test_queue import policy as policy  # a fixture
from tests.fakes.reports import an_engine


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.queue.RECONSIDER_SECONDS", 0.01)
    monkeypatch.setattr("balancer.queue.RELENT_SECONDS", 0.05)


FAILED = a_candidate("a", an_engine(slots=1))
ANEW = a_candidate("a", msgspec.structs.replace(FAILED.engine, epoch=1))
BUSY = a_candidate("b", an_engine(slots=1, busy=1))


@pytest.mark.parametrize(
    ("idle", "avoids"),
    [
        pytest.param(ANEW, "tried", id="failed it and started anew"),
        pytest.param(FAILED, "left", id="was left for a faster one"),
    ],
)
async def test_an_idle_engine_is_not_avoided_for_ever_while_the_other_is_busy(
    policy: str, idle: EngineCandidate, avoids: str
) -> None:
    setup = Setup(policy, able=[idle, BUSY])
    gone: dict[str, Any] = {avoids: frozenset({FAILED.incarnation})}

    waits = setup.holder(a_request(again=True, **gone))
    await settle()

    assert setup.queue.waiting == 1
    assert await (await waits.held()).done() == "a"


async def test_an_engine_that_failed_a_request_does_not_get_it_until_it_restarts(
    policy: str,
) -> None:
    setup = Setup(policy, able=[FAILED, BUSY])
    waits = setup.holder(a_request(tried=frozenset({FAILED.incarnation})))
    while not any(each.routing.relents for each in setup.queue.requests):
        await settle()

    setup.become(FAILED, a_candidate("b", an_engine(slots=1)))

    assert await (await waits.held()).done() == "b"


class Stumbling(LeastBusy):
    """A policy that fails at its next looks, so many times."""

    failures = 0

    def assign(self, waiting: Collection[QueuedRequest], now: float) -> list[Settled]:
        """Fail, or assign."""
        if self.failures:
            self.failures -= 1
            raise ZeroDivisionError
        return super().assign(waiting, now)


async def test_a_look_that_fails_is_not_the_last_one() -> None:
    able, counts = [a_candidate(engine=an_engine(slots=1, busy=1))], SlotCounts()
    counts.update(able)
    policy = Stumbling(lambda: able, counts)
    queue = RequestQueue(policy, limit=10, seconds=60.0)
    waits = Holder(queue, a_request())
    await settle()

    policy.failures = 2
    counts.update([a_candidate(engine=an_engine(slots=1))])  # nobody tells the queue

    await (await waits.held()).done()
    assert policy.failures == 0
