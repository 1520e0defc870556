from __future__ import annotations

import asyncio

import pytest

from balancer.lane import Lane
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint, eventually
from tests.fakes.llama import Behaviour
from tests.fakes.node import an_engine, fake_node


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.calibrating.SPREAD_SECONDS", 0.0)


def lane(balancer: Endpoint) -> Lane:
    (candidate,) = balancer.balancer.desk.current.candidates
    found = balancer.balancer.desk.predict.lanes.get(candidate.key)
    assert found is not None
    return found


async def test_an_engine_that_joins_is_measured_before_anybody_asks() -> None:
    behaviour = Behaviour(prefill=500, decode=50)
    async with (
        fake_node("pi", behaviour) as node,
        endpoint(node, calibrate=True) as balancer,
    ):
        await eventually(lambda: lane(balancer).learner.calibrated)

        (probe,) = node.llama.requests
        assert probe.body["cache_prompt"] is False
        assert lane(balancer).speed.prefill == pytest.approx(1 / 500, rel=0.4)
        assert lane(balancer).speed.decode == pytest.approx(1 / 50, rel=0.4)
        assert balancer.balancer.desk.ledger.busy(("pi", node.engine.id)) == 0


async def test_a_request_does_not_wait_for_the_probe_of_its_only_slot() -> None:
    behaviour = Behaviour(slots=1, prefill=100, decode=2)
    async with (
        fake_node("pi", behaviour) as node,
        endpoint(node, calibrate=True) as balancer,
    ):
        await eventually(lambda: bool(node.llama.requests))
        began = asyncio.get_running_loop().time()

        answer = await balancer.post(CHAT, chat(max_tokens=1))

        assert answer.status == 200
        # The probe alone would take nine seconds.
        assert asyncio.get_running_loop().time() - began < 5


async def test_a_slow_engine_is_measured_to_the_end_while_a_known_one_serves() -> None:
    slow = Behaviour(slots=1, prefill=200, decode=10)
    fast = Behaviour(slots=1)
    async with (
        fake_node("pi", slow) as pi,
        fake_node("gpu", fast) as gpu,
        endpoint(pi, gpu, calibrate=True) as balancer,
    ):
        await eventually(lambda: known(balancer) >= {"gpu"})
        await eventually(lambda: bool(pi.llama.requests))

        answers = [balancer.post(CHAT, chat(max_tokens=1)) for _ in range(6)]
        served = {a.headers["x-edgeserve-node"] for a in await asyncio.gather(*answers)}
        await eventually(lambda: known(balancer) == {"pi", "gpu"})

        assert served == {"gpu"}
        assert len(pi.llama.requests) == 1


def known(balancer: Endpoint) -> set[str]:
    """The nodes whose engines have been measured."""
    desk = balancer.balancer.desk
    return {
        each.node
        for each in desk.current.candidates
        if (found := desk.predict.lanes.get(each.key)) and found.learner.calibrated
    }


async def test_an_engine_with_new_launch_settings_is_measured_anew() -> None:
    async with (
        fake_node("pi", Behaviour()) as node,
        endpoint(node, calibrate=True) as balancer,
    ):
        await eventually(lambda: lane(balancer).learner.calibrated)
        before = lane(balancer)
        other = an_engine(context=2048)

        node.say(slots=2, context=2048, launch=other.launch, epoch=1)

        await eventually(lambda: lane(balancer) is not before)
        await eventually(lambda: lane(balancer).learner.calibrated)
        assert len(node.llama.requests) == 2


async def test_an_engine_that_restarts_as_it_was_is_known_but_its_cache_is_not() -> (
    None
):
    async with (
        fake_node("pi", Behaviour()) as node,
        endpoint(node, calibrate=True) as balancer,
    ):
        await eventually(lambda: lane(balancer).learner.calibrated)
        await balancer.post(CHAT, chat("x" * 600, max_tokens=1))
        holdings = balancer.balancer.desk.predict.mind.holdings
        assert any(holdings.held)

        node.say(epoch=1)

        await eventually(lambda: not any(holdings.held))
        assert lane(balancer).learner.calibrated


async def test_what_cannot_generate_is_not_measured() -> None:
    engine = an_engine(abilities=("embeddings",))
    async with (
        fake_node("pi", engine=engine) as node,
        endpoint(node, calibrate=True) as balancer,
    ):
        node.say(busy=0)
        await eventually(lambda: bool(balancer.balancer.desk.current.candidates))

        assert not node.llama.requests
