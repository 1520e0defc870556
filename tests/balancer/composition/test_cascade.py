"""Cascades: a small model answers if it is sure, else the large one does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from balancer.composition.cascade import doubt, is_judged, without_logprobs
from balancer.composition.prospects import Prospects
from balancer.composition.routes import Prospect
from edgeserve.config.routes import ModelRoute
from edgeserve.errors import NodeLost
from tests.balancer.api.test_inference import said
from tests.balancer.broken_streams import sse
from tests.balancer.composition.test_routed_requests import BIG, SMALL, record_of, told
from tests.balancer.endpoint import CHAT, Answered, Endpoint, chat, endpoint, eventually
from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node
from tests.fakes.reports import an_engine

LONG = 24
"""Words of the small model's answers; more than are held back."""


@asynccontextmanager
async def cascade(
    logprob: float, length: int = LONG, **settings: Any
) -> AsyncGenerator[tuple[Endpoint, FakeNode, FakeNode]]:
    """Have a small model as sure as `logprob`, and a large one that says `w0 w1 …`."""
    route = ModelRoute(name="cheap", models=("small", "big"), hold_tokens=8)
    behaviour = Behaviour(length=length, logprob=logprob, decode=200.0)
    async with (
        fake_node("pi", behaviour) as small,
        fake_node("gpu", engine=an_engine(BIG)) as large,
        endpoint(small, large, routes=(route,), **settings) as balancer,
    ):
        yield balancer, small, large


async def ask(balancer: Endpoint, **fields: Any) -> Answered:
    return await balancer.post(CHAT, chat(model="cheap", **fields))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_small_model_that_is_sure_answers_and_shows_no_probabilities(
    stream: bool,
) -> None:
    async with cascade(-0.1) as (balancer, small, large):
        answer = await ask(balancer, stream=stream)

    assert (answer.status, told(answer)) == (200, ("cheap", SMALL, "first choice"))
    assert b"logprob" not in answer.body
    assert f"w{LONG - 1}".encode() in answer.body
    assert small.llama.requests[0].body["logprobs"] is True
    assert large.told == []


@pytest.mark.parametrize("length", [LONG, 4])
@pytest.mark.parametrize("stream", [False, True])
async def test_where_it_is_unsure_the_large_one_answers_and_nothing_else_is_seen(
    stream: bool, length: int
) -> None:
    async with cascade(-1.5, length) as (balancer, small, large):
        answer = await ask(balancer, stream=stream)
        record = await record_of(balancer, answer)

        if stream and length == LONG:
            await eventually(lambda: small.llama.counters.cancelled == 1)

    count = min(length, 8)
    why = f"its first {count} tokens is -1.50, below -0.6"
    assert (answer.status, told(answer)[1]) == (200, BIG)
    assert told(answer)[2].startswith("small is unsure: the mean log-probability of ")
    assert told(answer)[2].endswith(why)
    assert answer.body.count(b"w0") == 1
    assert answer.headers["x-edgeserve-attempts"] == "2"
    assert "logprobs" not in large.llama.requests[0].body
    assert [each["variant"] for each in record["attempts"]] == [SMALL, BIG]
    assert record["attempts"][0]["outcome"].startswith("given up: it is unsure")
    assert record["route"]["skipped"][0]["reason"] == "unsure"


async def test_the_slot_that_was_left_does_not_keep_the_large_model_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = iter([Prospect(), Prospect()])  # before the choice, and at the judgement
    full = Prospect(full="is full")
    monkeypatch.setattr(Prospects, "of", lambda *_: next(looks, full))
    async with cascade(-1.5) as (balancer, *_):
        answer = await ask(balancer, stream=True)

    assert told(answer)[1] == BIG
    assert told(answer)[2].startswith("small is unsure")


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"n": 2},
    ],
)
async def test_what_probabilities_do_not_judge_goes_to_the_large_model_at_once(
    fields: dict[str, Any],
) -> None:
    async with cascade(-0.1) as (balancer, small, _):
        answer = await ask(balancer, **fields)

    assert (answer.status, told(answer)[1:]) == (200, (BIG, "first choice"))
    assert small.told == []


async def test_a_small_model_answers_unjudged_where_the_large_one_is_away() -> None:
    async with cascade(-1.5) as (balancer, _, large):
        large.say(state="failed")
        await balancer.until(
            lambda fleet: fleet.nodes[1].report.engines[0].state == "failed"
        )
        answer = await ask(balancer, stream=True)

    assert told(answer)[1] == SMALL
    assert b"logprob" not in answer.body


@pytest.mark.parametrize("stream", [False, True])
async def test_a_small_model_that_fails_is_passed_over(stream: bool) -> None:
    async with cascade(-0.1) as (balancer, small, large):
        small.refuse = NodeLost("the engine ended")
        answer = await ask(balancer, stream=stream)

    assert (answer.status, told(answer)[1]) == (200, BIG)
    (asked,) = large.llama.requests
    assert (asked.body["stream"], "logprobs" in asked.body) == (True, False)


async def test_one_that_breaks_off_while_it_is_held_leaves_no_trace() -> None:
    async with cascade(-0.1) as (balancer, small, _):
        small.llama.behaviour.fault, small.llama.behaviour.fault_tokens = "break", 3
        answer = await ask(balancer, stream=True)

    assert (answer.status, told(answer)[1]) == (200, BIG)
    assert answer.body.count(b"w0") == 1
    assert answer.body.endswith(b"data: [DONE]\n\n")


async def test_an_answer_that_was_found_good_goes_on_at_the_same_model() -> None:
    route = ModelRoute(name="cheap", models=("small", "big"), hold_tokens=4)
    first, second = (
        Behaviour(length=LONG, fault="break", fault_tokens=12, fault_count=1)
        for _ in range(2)
    )
    async with (
        fake_node("pi", first) as small,
        fake_node("nuc", second) as spare,
        fake_node("gpu", engine=an_engine(BIG)) as large,
        endpoint(small, spare, large, routes=(route,)) as balancer,
    ):
        begun = asyncio.ensure_future(ask(balancer, stream=True))
        # Whichever is asked first breaks off once; the other one then goes on.
        await eventually(lambda: bool(small.told or spare.told))
        (second if small.told else first).fault = None
        answer = await begun

    assert told(answer)[1] == SMALL
    assert said(answer.body) == " ".join(f"w{n}" for n in range(LONG))
    asked = [each.path for each in small.told + spare.told]
    assert (large.told, asked.count(CHAT)) == ([], 2)


def test_probabilities_are_removed_from_events_and_other_bytes_pass() -> None:
    entry = {"content": [{"token": "a", "logprob": -0.5}, {"logprob": -9e37}]}
    choice = {"index": 0, "delta": {"content": '"logprobs"'}}
    with_, without = (
        sse({"choices": [{**choice, **more}]}) for more in ({"logprobs": entry}, {})
    )

    clean, found = without_logprobs(with_ + b"data: [DONE]\n\n")

    assert found == [-0.5, -20.0]
    assert [msgspec.json.decode(each[6:]) for each in clean.split(b"\n\n")[:1]] == [
        msgspec.json.decode(without[6:])
    ]
    assert clean.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "odd",
    [
        b'data: {"logprobs": 3}\n\n',
        b'data: {"choices": [{"logprobs": [1]}]}\n\n',
        b'data: {"choices": {"logprobs": 1}}\n\n',
        b'data: {"logprobs": \n\n',
    ],
)
def test_odd_events_do_no_harm(odd: bytes) -> None:
    assert without_logprobs(odd)[1] == []


def test_a_model_without_probabilities_is_unsure() -> None:
    assert doubt([], -0.6) == "is unsure: its engine gave no probabilities"
    assert doubt([-0.6], -0.6) == ""


@pytest.mark.parametrize(
    ("body", "judged"),
    [
        (b"{}", True),
        (b'{"tools": [], "response_format": null, "logprobs": false}', True),
        (b'{"grammar": "x"}', False),
    ],
)
def test_only_a_plain_chat_is_judged(body: bytes, judged: bool) -> None:
    assert is_judged(body) is judged
