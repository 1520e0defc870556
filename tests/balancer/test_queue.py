from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from balancer.fleet.changes import Changes
from balancer.fleet.engines import EngineCandidate
from balancer.fleet.slot_counts import SlotCounts
from balancer.prediction.fleet_model import FleetModel
from balancer.prediction.prefix_cache import PrefixCacheIndex
from balancer.queue import RequestQueue
from balancer.routing.decision import RoutingRequest
from balancer.routing.least_busy import LeastBusy
from balancer.routing.predictive import PredictivePolicy
from balancer.routing.queued_request import RoutingPolicy
from edgeserve.errors import FleetBusy, NoNode, TooLate, UnknownModel
from tests.balancer.building import Holder, a_candidate, a_request, unheard
from tests.fakes.reports import an_engine
from tests.patience import PATIENCE


@pytest.fixture(params=["least-busy", "predict"])
def policy(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@dataclass
class Setup:
    """A queue in front of engines that tests may change."""

    policy: str
    able: list[EngineCandidate] = field(default_factory=lambda: [a_candidate()])
    limit: int = 100
    seconds: float = PATIENCE

    def __post_init__(self) -> None:
        self.slot_counts = SlotCounts()
        known_better = Changes()
        fleet_model = FleetModel(PrefixCacheIndex(), self.slot_counts)
        self.predict = PredictivePolicy(
            self.slot_counts, fleet_model, time.monotonic, known_better.notify
        )
        simple = LeastBusy(lambda: self.able, self.slot_counts)
        chosen: RoutingPolicy = simple if self.policy == "least-busy" else self.predict
        self.queue = RequestQueue(chosen, limit=self.limit, seconds=self.seconds)
        known_better.subscribe(self.queue.moved)
        self.become(*self.able)

    def become(self, *able: EngineCandidate) -> None:
        self.able = list(able)
        self.slot_counts.update(self.able)
        self.predict.update(self.able)
        self.queue.changed()

    def holder(self, routing: RoutingRequest | None = None) -> Holder:
        return Holder(self.queue, routing or a_request())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_free_slot_is_taken_without_waiting(policy: str) -> None:
    setup = Setup(policy)

    async with setup.queue.claim(a_request(), unheard) as send:
        assert send.to.node == "pi"
        assert setup.queue.waiting == 0
        assert setup.slot_counts.of(send.to.key).ours == 1

    assert setup.slot_counts.of(send.to.key).ours == 0


async def test_a_slot_comes_back_when_the_request_fails(policy: str) -> None:
    setup = Setup(policy)

    with pytest.raises(RuntimeError):
        async with setup.queue.claim(a_request(), unheard):
            raise RuntimeError

    assert setup.slot_counts.busy(a_candidate().key) == 0


async def test_the_first_request_is_served_first(policy: str) -> None:
    setup = Setup(policy, able=[a_candidate(engine=an_engine(slots=1))])
    first = await setup.holder().held()
    order = list[int]()
    waiting = [setup.holder() for _ in range(5)]
    for number, each in enumerate(waiting):
        each.task.add_done_callback(partial(lambda n, _: order.append(n), number))
    await settle()
    assert setup.queue.waiting == 5

    await first.done()
    for each in waiting:
        await (await each.held()).done()

    assert order == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "comes_back",
    [{"tried": frozenset({("gone", "small:Q4_1", "", 1)})}, {"again": True}],
    ids=["an engine has failed it", "an engine was full"],
)
async def test_a_request_that_was_sent_before_finds_room_and_goes_first(
    policy: str, comes_back: dict[str, Any]
) -> None:
    pi = a_candidate(engine=an_engine(slots=1))
    setup = Setup(policy, able=[pi], limit=1)
    first, waits = await setup.holder().held(), setup.holder()
    await settle()

    failed = setup.holder(a_request(**comes_back))
    await settle()
    assert setup.queue.waiting == 2
    await first.done()
    await settle()

    assert failed.holding.is_set()
    assert not waits.holding.is_set()
    await failed.done()
    await (await waits.held()).done()


async def test_a_request_that_can_be_served_does_not_wait_behind_one_that_cannot(
    policy: str,
) -> None:
    big = a_candidate("nuc", an_engine("big:Q4_1", slots=1))
    setup = Setup(policy, able=[a_candidate(), big])
    holder = await setup.holder(a_request("big")).held()
    blocked = setup.holder(a_request("big"))
    await settle()

    free = await setup.holder(a_request("small")).held()

    assert not blocked.holding.is_set()
    await free.done()
    await holder.done()
    await (await blocked.held()).done()


async def test_a_node_that_joins_wakes_waiting_requests(policy: str) -> None:
    setup = Setup(policy, able=[a_candidate(unavailable="loading", temporary=True)])
    waiting = setup.holder()
    await settle()

    setup.become(a_candidate("nuc"))

    await waiting.held()
    assert await waiting.done() == "nuc"


async def test_others_work_that_ends_wakes_waiting_requests(policy: str) -> None:
    full = a_candidate(engine=an_engine(busy=2))
    setup = Setup(policy)
    setup.become(full)
    waiting = setup.holder()
    await settle()
    assert not waiting.holding.is_set()

    setup.become(a_candidate(engine=an_engine(busy=1)))

    await (await waiting.held()).done()


async def test_requests_that_wait_for_what_cannot_come_get_an_error(
    policy: str,
) -> None:
    setup = Setup(policy, able=[a_candidate(unavailable="loading", temporary=True)])
    waiting = setup.holder()
    await settle()

    setup.become(a_candidate(unavailable="quarantined"))

    with pytest.raises(NoNode, match="quarantined"):
        await waiting.task


async def test_an_unknown_model_never_waits(policy: str) -> None:
    with pytest.raises(UnknownModel):
        async with Setup(policy).queue.claim(a_request("huge"), unheard):
            pass


async def test_a_full_queue_refuses_and_says_when_to_come_back(policy: str) -> None:
    setup = Setup(policy, able=[a_candidate(engine=an_engine(slots=1))], limit=1)
    holder = await setup.holder().held()
    waiting = setup.holder()
    await settle()

    with pytest.raises(FleetBusy) as refused:
        async with setup.queue.claim(a_request(), unheard):
            pass

    assert int(refused.value.headers()["retry-after"]) >= 1
    await holder.done()
    await (await waiting.held()).done()


async def test_a_wait_has_an_end(policy: str) -> None:
    setup = Setup(policy, able=[a_candidate(engine=an_engine(slots=1))], seconds=0.02)
    holder = await setup.holder().held()

    with pytest.raises(TooLate):
        async with setup.queue.claim(a_request(), unheard):
            pass

    assert setup.queue.waiting == 0
    await holder.done()


async def test_a_client_that_leaves_the_queue_costs_nothing(policy: str) -> None:
    setup = Setup(policy, able=[a_candidate(engine=an_engine(slots=1))])
    holder = await setup.holder().held()
    leaving, staying = setup.holder(), setup.holder()
    await settle()

    leaving.task.cancel()
    await settle()
    assert setup.queue.waiting == 1

    await holder.done()
    await (await staying.held()).done()
    assert setup.slot_counts.busy(a_candidate().key) == 0


async def test_a_client_that_leaves_as_its_slot_is_granted_gives_it_back(
    policy: str,
) -> None:
    setup = Setup(policy, able=[a_candidate(engine=an_engine(slots=1))])
    holder = await setup.holder().held()
    leaving, staying = setup.holder(), setup.holder()
    await settle()

    holder.let_go.set()
    await holder.task  # `leaving` is granted the slot, and has not run since
    leaving.task.cancel()

    await (await staying.held()).done()
    with pytest.raises(asyncio.CancelledError):
        await leaving.task
    assert setup.slot_counts.busy(a_candidate().key) == 0


async def test_hundreds_of_claimers_never_take_more_than_there_is(policy: str) -> None:
    engines = {"pi": 1, "laptop": 2, "gpu": 4}
    able = [a_candidate(n, an_engine(slots=slots)) for n, slots in engines.items()]
    setup = Setup(policy, able=able, limit=1000)
    chance = random.Random(7)  # noqa: S311 - the same chance every time
    at_work = dict.fromkeys(engines, 0)
    most = dict.fromkeys(engines, 0)

    async def claimer() -> None:
        async with setup.queue.claim(a_request(), unheard) as send:
            node = send.to.node
            at_work[node] += 1
            most[node] = max(most[node], at_work[node])
            try:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                at_work[node] -= 1

    tasks = [asyncio.ensure_future(claimer()) for _ in range(600)]
    for _ in range(40):
        await asyncio.sleep(0)
        chance.choice(tasks).cancel()
    async with asyncio.timeout(PATIENCE):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    left = [each for each in outcomes if isinstance(each, asyncio.CancelledError)]
    assert all(each is None for each in outcomes if each not in left)
    assert len(left) <= 40
    assert most == engines
    for each in able:
        setup.slot_counts.settle(each.key)
    assert all(setup.slot_counts.busy(each.key) == 0 for each in able)
    assert setup.queue.waiting == 0
