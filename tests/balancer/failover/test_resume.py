"""What clients notice of an engine that dies in the midst of their answer: nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from balancer.failover.resume import resume
from tests.balancer.api.test_inference import events, said
from tests.balancer.endpoint import CHAT, Answered, Endpoint, chat, endpoint, eventually
from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node
from tests.fakes.reports import an_engine


def breaks(after: int = 3) -> Behaviour:
    return Behaviour(fault="break", fault_tokens=after)


@asynccontextmanager
async def one_breaks(
    other: str = "small:Q4_1", **settings: Any
) -> AsyncGenerator[tuple[Endpoint, FakeNode, FakeNode]]:
    """Run two nodes: the first breaks off after three words, the other is well."""
    async with (
        fake_node("a-breaks", breaks()) as first,
        fake_node("b-well", engine=an_engine(other)) as second,
        endpoint(first, second, **settings) as balancer,
    ):
        yield balancer, first, second


def words(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


async def explained(balancer: Endpoint, answer: Answered) -> Any:
    id_ = answer.headers["x-edgeserve-request-id"]
    return (await balancer.get(f"/edgeserve/v1/requests/{id_}")).json


async def test_a_chat_goes_on_elsewhere_as_one_clean_stream() -> None:
    async with one_breaks() as (balancer, _, well):
        options = {"include_usage": True}
        answer = await balancer.post(
            CHAT, chat(stream=True, max_tokens=8, stream_options=options)
        )

    told = events(answer.body)
    choices = [each for event in told for each in event["choices"]]
    assert said(answer.body) == words(8)
    assert answer.body.count(b"data: [DONE]") == 1
    assert len([each for each in choices if "role" in each["delta"]]) == 1
    assert len({event["id"] for event in told}) == 1
    assert told[-1]["usage"]["completion_tokens"] == 8
    assert not any("prompt_progress" in event for event in told)
    assert well.llama.requests[-1].body["max_tokens"] == 5


async def test_how_an_answer_goes_on_is_decided_once_a_break(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plans = list[object]()

    def counted(*given: Any, **more: Any) -> object:
        plans.append(resume(*given, **more))
        return plans[-1]

    monkeypatch.setattr("balancer.failover.context.resume", counted)
    async with one_breaks() as (balancer, _, _):
        answer = await balancer.post(CHAT, chat(stream=True, max_tokens=8))

    assert said(answer.body) == words(8)
    assert len(plans) == 1


@pytest.mark.parametrize(
    ("path", "key"), [("/v1/completions", "text"), ("/completion", "content")]
)
async def test_a_completion_goes_on_elsewhere_too(path: str, key: str) -> None:
    async with one_breaks() as (balancer, _, _):
        body = {"model": "small", "prompt": "x", "stream": True, "n_predict": 6}
        answer = await balancer.post(path, body)

    texts = [(each.get("choices") or [each])[0][key] for each in events(answer.body)]
    assert "".join(texts) == words(6)


async def test_what_happened_is_in_the_request_log() -> None:
    async with one_breaks() as (balancer, _, _):
        answer = await balancer.post(CHAT, chat(stream=True, max_tokens=8))
        record = await explained(balancer, answer)
        metrics = (await balancer.get("/metrics")).body.decode()

    first, second = record["attempts"]
    assert first["outcome"].startswith("broke off")
    assert (second["node"], second["resumes"]) == ("b-well", True)
    assert second["outcome"] == record["outcome"] == "answered"
    assert "edgeserve_resumed_total 1" in metrics


async def test_without_streaming_the_whole_answer_comes_without_lost_work() -> None:
    async with one_breaks() as (balancer, _, well):
        answer = await balancer.post(CHAT, chat(max_tokens=40))

    assert (answer.status, answer.text) == (200, words(16))
    assert answer.json["usage"]["completion_tokens"] == 16
    assert answer.headers["x-edgeserve-attempts"] == "2"
    assert answer.headers["x-edgeserve-node"] == "b-well"
    continued = well.llama.requests[-1].body["messages"][-1]
    assert continued == {"role": "assistant", "content": words(3)}


async def test_without_streaming_an_answer_that_cannot_resume_begins_anew() -> None:
    async with one_breaks() as (balancer, _, well):
        answer = await balancer.post(CHAT, chat(max_tokens=40, grammar="root ::= x"))

    assert (answer.status, answer.text) == (200, words(16))
    assert len(well.llama.requests[-1].body["messages"]) == 1


async def test_a_stream_bound_to_a_grammar_ends_in_an_error_that_says_so() -> None:
    async with one_breaks() as (balancer, _, well):
        answer = await balancer.post(CHAT, chat(stream=True, grammar="root ::= x"))

    last = events(answer.body)[-1]
    assert last["error"]["code"] == "node_lost"
    assert "grammar" in last["error"]["message"]
    assert b"[DONE]" not in answer.body
    assert well.told == []


async def test_another_variant_goes_on_only_where_the_settings_say_so() -> None:
    ask = chat(stream=True, max_tokens=8)
    async with one_breaks(other="small:Q8_0") as (balancer, _, _):
        refused = await balancer.post(CHAT, ask)
    async with one_breaks(other="small:Q8_0", resume="any") as (balancer, _, _):
        resumed_stream = await balancer.post(CHAT, ask)

    assert "error" in events(refused.body)[-1]
    assert said(resumed_stream.body) == words(8)


async def test_another_variant_begins_anew_without_streaming() -> None:
    async with one_breaks(other="small:Q8_0") as (balancer, _, well):
        answer = await balancer.post(CHAT, chat(max_tokens=40))

    assert answer.text == words(16)
    assert len(well.llama.requests[-1].body["messages"]) == 1


async def test_nothing_goes_on_where_the_settings_forbid_it() -> None:
    async with one_breaks(resume="off") as (balancer, _, well):
        answer = await balancer.post(CHAT, chat(stream=True, max_tokens=8))

    assert "`resume` is off" in events(answer.body)[-1]["error"]["message"]
    assert well.told == []


@pytest.mark.parametrize(("broken", "whole"), [(2, True), (3, False)])
async def test_an_answer_goes_on_twice_and_no_more(broken: int, whole: bool) -> None:
    async with (
        fake_node("a", breaks(2)) as a,
        fake_node("b", breaks(2)) as b,
        fake_node("c", breaks(2) if broken == 3 else Behaviour()) as c,
        fake_node("d") as d,
        endpoint(a, b, c, d, attempts=9) as balancer,
    ):
        answer = await balancer.post(CHAT, chat(stream=True, max_tokens=9))

    if whole:
        assert said(answer.body) == words(9)
        assert answer.body.endswith(b"data: [DONE]\n\n")
    else:
        assert "2 times" in events(answer.body)[-1]["error"]["message"]
        assert d.told == []


async def test_an_engine_that_fails_before_it_goes_on_is_passed_over() -> None:
    async with (
        fake_node("a", breaks()) as a,
        fake_node("b", Behaviour(fault="reset")) as b,
        fake_node("c") as c,
        endpoint(a, b, c) as balancer,
    ):
        answer = await balancer.post(CHAT, chat(stream=True, max_tokens=8))

    assert said(answer.body) == words(8)


async def test_a_long_answer_is_remembered_from_its_beginning() -> None:
    long = Behaviour(length=500, fault="break", fault_tokens=400)
    async with (
        fake_node("a", long) as a,
        fake_node("b", Behaviour(length=500)) as b,
        endpoint(a, b) as balancer,
    ):
        answer = await balancer.post(CHAT, chat(stream=True))

    assert said(answer.body) == words(500)


async def test_a_template_that_breaks_messages_is_found_out() -> None:
    async with one_breaks() as (balancer, _, well):
        well.llama.behaviour.template = "mangled"
        answer = await balancer.post(CHAT, chat(stream=True, max_tokens=8))

    assert "template" in events(answer.body)[-1]["error"]["message"]
    asked = [each for each in well.llama.requests if each.path == "/apply-template"]
    assert len(asked) == 2


async def test_an_engine_that_has_started_anew_may_go_on_with_what_it_broke_off() -> (
    None
):
    once = Behaviour(fault="break", fault_tokens=3, fault_count=1)
    slowly = Behaviour(fault="break", fault_tokens=3, fault_count=1, decode=4)
    async with (
        fake_node("a", once) as first,
        fake_node("b", slowly) as second,
        endpoint(first, second) as balancer,
    ):
        asking = asyncio.create_task(
            balancer.post(CHAT, chat(stream=True, max_tokens=9))
        )
        await eventually(lambda: bool(second.told))
        first.say(epoch=1)
        answer = await asking
        about = await explained(balancer, answer)

    assert said(answer.body) == words(9)
    assert [each["node"] for each in about["attempts"]] == ["a", "b", "a"]
