"""A request leaves an engine that turns out slow, and its client does not notice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import pytest

from balancer.failover import moves
from balancer.prediction.speed import Sample
from tests.balancer.api.test_inference import said
from tests.balancer.endpoint import (
    CHAT,
    Answered,
    Endpoint,
    chat,
    endpoint,
    eventually,
)
from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node
from tests.fakes.reports import an_engine

WORDS = " ".join(f"p{number}" for number in range(400))
SLOW, FAST = ("slow", "small:Q4_1"), ("fast", "small:Q4_1")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at every tick, and let a second be much."""
    monkeypatch.setattr(moves, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr("balancer.routing.moving.LEAST_SECONDS", 1.0)


def measured(balancer: Endpoint, reads: Mapping[tuple[str, str], float]) -> None:
    """Have engines measured, as a probe does: tokens/s that they read; a tenth, write.

    A probe may mislead: the fakes have speeds of their own.
    """
    for key, rate in reads.items():
        model = balancer.balancer.state.predictive.fleet_model.get(key)
        assert model is not None
        model.learner.begin(
            Sample(
                cached=0,
                prompt=128,
                prompt_ms=1000 * 128 / rate,
                predicted=16,
                predicted_ms=1000 * 15 / (rate / 10),
            )
        )
        model.stale = True


@asynccontextmanager
async def misjudged(
    slow: Behaviour,
) -> AsyncGenerator[tuple[Endpoint, FakeNode, FakeNode]]:
    """Run an engine that seems the faster one and is not, and one as it seems."""
    quick = Behaviour(slots=1, length=100, prefill=4000, decode=400)
    async with (
        fake_node(
            "slow", slow, engine=an_engine(slots=slow.slots, batch=slow.batch)
        ) as first,
        fake_node("fast", quick, engine=an_engine(slots=1)) as second,
        endpoint(first, second) as balancer,
    ):
        measured(balancer, {SLOW: 40_000, FAST: 4000})
        yield balancer, first, second


READS_SLOWLY = Behaviour(slots=1, length=100, prefill=100, decode=1000, batch=32)
WRITES_SLOWLY = Behaviour(slots=1, length=100, prefill=40_000, decode=10)


async def explained(balancer: Endpoint, answer: Answered) -> list[str]:
    """Return the outcome of every attempt, as the request log has it."""
    id_ = answer.headers["x-edgeserve-request-id"]
    found = await balancer.get(f"/edgeserve/v1/requests/{id_}")
    return [each["outcome"] for each in found.json["attempts"]]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_prompt_that_is_read_slowly_is_read_elsewhere(stream: bool) -> None:
    async with misjudged(READS_SLOWLY) as (balancer, slow, _):
        answer = await balancer.post(CHAT, chat(WORDS, stream=stream, max_tokens=40))
        outcomes = await explained(balancer, answer)
        metrics = (await balancer.get("/metrics")).body.decode()
        await eventually(lambda: slow.engine.busy == 0)
        state = balancer.balancer.state
        await eventually(lambda: state.slot_counts.busy(SLOW) == 0)

    text = said(answer.body) if stream else answer.text
    assert text.split() == [f"w{number}" for number in range(40)]
    assert outcomes[0].startswith("moved: ")
    assert outcomes[0].endswith(" s on fast")
    assert outcomes[1] == "answered"
    assert state.breakers.health(SLOW).closed
    assert slow.llama.counters.cancelled == 1
    assert "edgeserve_moved_total 1" in metrics
    assert 'node="slow",outcome="moved"} 1' in metrics


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_is_written_slowly_goes_on_elsewhere(stream: bool) -> None:
    async with misjudged(WRITES_SLOWLY) as (balancer, slow, fast):
        answer = await balancer.post(CHAT, chat(stream=stream, max_tokens=60))
        outcomes = await explained(balancer, answer)

    text = said(answer.body) if stream else answer.text
    assert text.split() == [f"w{number}" for number in range(60)]
    assert outcomes[0].startswith("moved: ")
    assert outcomes[1] == "answered"
    assert slow.llama.counters.cancelled == 1
    assert fast.llama.counters.predicted_tokens < 60
    if stream:
        assert answer.body.count(b"data: [DONE]") == 1


async def test_the_slot_that_is_left_is_taken_until_its_engine_has_noticed() -> None:
    behaviour = Behaviour(
        slots=1, length=100, prefill=100, decode=1000, batch=32, notice=1.0
    )
    async with misjudged(behaviour) as (balancer, slow, _):
        asked = asyncio.ensure_future(balancer.post(CHAT, chat(WORDS, max_tokens=40)))
        await eventually(lambda: slow.llama.counters.cancelled == 1)
        taken = balancer.balancer.state.slot_counts.of(SLOW)
        at_once = (taken.ours, taken.left)
        await eventually(lambda: balancer.balancer.state.slot_counts.busy(SLOW) == 0)
        answer = await asked

    assert at_once == (0, 1)
    assert answer.status == 200


async def test_a_small_gain_moves_nothing() -> None:
    slow = Behaviour(slots=1, length=100, prefill=800, decode=1000, batch=32)
    async with misjudged(slow) as (balancer, _, _):
        answer = await balancer.post(CHAT, chat(WORDS, max_tokens=40))

    assert answer.headers["x-edgeserve-attempts"] == "1"


async def test_no_request_moves_beyond_the_retry_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("balancer.failover.stall.RetryBudget.left", 0)
    slow = Behaviour(slots=1, length=100, prefill=200, decode=1000, batch=32)
    async with misjudged(slow) as (balancer, _, _):
        answer = await balancer.post(CHAT, chat(WORDS, max_tokens=40))

    assert answer.headers["x-edgeserve-attempts"] == "1"


async def test_a_slot_for_which_a_request_waits_is_left_to_it() -> None:
    async with misjudged(READS_SLOWLY) as (balancer, slow, fast):
        model = balancer.balancer.state.predictive.fleet_model.get(FAST)
        assert model is not None
        model.queued = 1
        asked = asyncio.ensure_future(balancer.post(CHAT, chat(WORDS, max_tokens=40)))
        await eventually(lambda: slow.llama.counters.prompt_tokens >= 200)
        before = len(fast.told)
        model.queued = 0
        answer = await asked

    assert before == 0
    assert answer.headers["x-edgeserve-attempts"] == "2"


async def test_an_answer_bound_to_a_grammar_stays_where_it_was_begun() -> None:
    slow = Behaviour(slots=1, length=100, prefill=40_000, decode=20)
    async with misjudged(slow) as (balancer, _, _):
        answer = await balancer.post(
            CHAT, chat(max_tokens=60, grammar='root ::= "w"+', stream=True)
        )

    assert len(said(answer.body).split()) == 60
    assert answer.headers["x-edgeserve-attempts"] == "1"


async def test_a_request_returns_where_the_faster_engine_is_lost() -> None:
    async with misjudged(READS_SLOWLY) as (balancer, slow, fast):
        fast.llama.behaviour.fault = "reset"
        answer = await balancer.post(CHAT, chat(WORDS[:1500], max_tokens=40))
        outcomes = await explained(balancer, answer)

    assert answer.status == 200
    assert answer.headers["x-edgeserve-node"] == "slow"
    assert outcomes[0].startswith("moved: ")
    assert [each.path for each in slow.told].count(CHAT) == 2
