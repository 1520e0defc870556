from __future__ import annotations

import asyncio

import msgspec
import pytest

from balancer.prediction.engine_model import EngineModel
from edgeserve.wire import EngineReport, Expected
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint, eventually
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.probes.calibration.SPREAD_SECONDS", 0.0)


def engine_model(balancer: Endpoint) -> EngineModel:
    (candidate,) = balancer.balancer.state.current.candidates
    found = balancer.balancer.state.predictive.fleet_model.get(candidate.key)
    assert found is not None
    return found


async def test_an_engine_that_joins_is_measured_before_the_first_request() -> None:
    behaviour = Behaviour(prefill=500, decode=200)
    async with (
        fake_node("pi", behaviour) as node,
        endpoint(node, calibrate=True) as balancer,
    ):
        await eventually(lambda: engine_model(balancer).learner.samples == 2)

        assert [each.body["n_predict"] for each in node.llama.requests] == [5, 16]
        assert not any(each.body["cache_prompt"] for each in node.llama.requests)
        # Far from what is believed of an engine that nobody has measured.
        assert 0.9 / 500 < engine_model(balancer).speed.prefill < 5 / 500
        assert 0.9 / 200 < engine_model(balancer).speed.decode < 8 / 200
        assert balancer.balancer.state.slot_counts.busy(("pi", node.engine.id)) == 0


async def test_a_request_does_not_wait_for_the_probe_of_its_only_slot() -> None:
    behaviour = Behaviour(slots=1, prefill=100, decode=2)
    async with (
        fake_node("pi", behaviour) as node,
        endpoint(node, calibrate=True) as balancer,
    ):
        await eventually(lambda: bool(node.llama.requests))

        answer = await balancer.post(CHAT, chat(max_tokens=1))

        assert answer.status == 200
        assert node.llama.counters.cancelled == 1


async def test_a_burst_at_the_very_start_goes_to_the_engine_that_looks_fastest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("balancer.probes.calibration.AGAIN_SECONDS", 0.5)
    pi = expecting(Behaviour(slots=1, prefill=60, decode=10), 30.0, 6.0)
    gpu = expecting(Behaviour(slots=2), 2000.0, 90.0)
    async with (
        fake_node("pi", pi[0], engine=pi[1]) as slow,
        fake_node("gpu", gpu[0], engine=gpu[1]) as fast,
        endpoint(slow, fast, calibrate=True) as balancer,
    ):
        answers = [balancer.post(CHAT, chat(max_tokens=1)) for _ in range(12)]
        served = {a.headers["x-edgeserve-node"] for a in await asyncio.gather(*answers)}

        assert served == {"gpu"}
        pi[0].prefill = 1000.0
        await eventually(lambda: known(balancer) == {"pi", "gpu"})


def expecting(
    behaviour: Behaviour, read: float, write: float
) -> tuple[Behaviour, EngineReport]:
    """A fake, and the report of an engine whose node expects so many tokens/s."""
    engine = an_engine(slots=behaviour.slots)
    expected = Expected(read=read, write=write)
    return behaviour, msgspec.structs.replace(engine, expected=expected)


async def test_an_engine_that_is_alone_serves_before_it_was_measured() -> None:
    slow = Behaviour(slots=1, prefill=50, decode=2)
    async with (
        fake_node("pi", slow) as pi,
        endpoint(pi, calibrate=True) as balancer,
    ):
        answer = await balancer.post(CHAT, chat(max_tokens=1))

        assert answer.status == 200


async def test_a_first_batch_gives_the_speed_before_the_first_token() -> None:
    async with (
        fake_node("pi", Behaviour(prefill=200, decode=10, batch=64)) as node,
        endpoint(node) as balancer,
    ):
        words = "word " * 200
        asked = asyncio.create_task(
            balancer.post(CHAT, chat(words, max_tokens=2, stream=True))
        )

        await eventually(lambda: engine_model(balancer).learner.calibrated)

        assert not asked.done()
        assert node.llama.counters.predicted_tokens == 0
        assert engine_model(balancer).speed.prefill == pytest.approx(1 / 200, rel=0.5)
        await asked


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
        assert pi.llama.requests[0].body["n_predict"] == 5


def known(balancer: Endpoint) -> set[str]:
    """The nodes whose engines have been measured."""
    state = balancer.balancer.state
    return {
        each.node
        for each in state.current.candidates
        if (found := state.predictive.fleet_model.get(each.key))
        and found.learner.calibrated
    }


async def test_an_engine_with_new_launch_settings_is_measured_anew() -> None:
    async with (
        fake_node("pi", Behaviour()) as node,
        endpoint(node, calibrate=True) as balancer,
    ):
        await eventually(lambda: engine_model(balancer).learner.calibrated)
        before = engine_model(balancer)
        other = an_engine(context=2048)

        node.say(slots=2, context=2048, launch=other.launch, epoch=1)

        await eventually(lambda: engine_model(balancer) is not before)
        await eventually(lambda: engine_model(balancer).learner.calibrated)
        assert engine_model(balancer).learner is not before.learner


async def test_an_engine_that_restarts_as_it_was_is_known_but_its_cache_is_not() -> (
    None
):
    async with (
        fake_node("pi", Behaviour()) as node,
        endpoint(node, calibrate=True) as balancer,
    ):
        await eventually(lambda: engine_model(balancer).learner.calibrated)
        await balancer.post(CHAT, chat("x" * 600, max_tokens=1))
        cache_index = balancer.balancer.state.predictive.dispatcher.cache_index
        assert any(cache_index.contents)

        node.say(epoch=1)

        await eventually(lambda: not any(cache_index.contents))
        assert engine_model(balancer).learner.calibrated


async def test_what_cannot_generate_is_not_measured() -> None:
    engine = an_engine(abilities=("embeddings",))
    async with (
        fake_node("pi", engine=engine) as node,
        endpoint(node, calibrate=True) as balancer,
    ):
        node.say(busy=0)
        await eventually(lambda: bool(balancer.balancer.state.current.candidates))

        assert not node.llama.requests
