"""What clients notice when nodes and engines fail: as little as can be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from edgeserve.errors import (
    Draining,
    EdgeserveError,
    FleetBusy,
    NodeLost,
    NoNode,
    Unauthorized,
    UnknownModel,
)
from tests.balancer.api.test_inference import events, said
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint, eventually
from tests.fakes.cable import Cable, cable
from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node
from tests.fakes.reports import an_engine

FAULTS = ("reset", "close_after_head")


@asynccontextmanager
async def one_bad_one_well(
    **bad: Any,
) -> AsyncGenerator[tuple[Endpoint, FakeNode, FakeNode]]:
    """Run two nodes of which the first, `bad`, is preferred: its name comes first."""
    async with (
        fake_node("a-bad", Behaviour(**bad)) as first,
        fake_node("b-well") as second,
        endpoint(first, second) as balancer,
    ):
        yield balancer, first, second


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_before_content_is_retried_elsewhere(
    fault: str, stream: bool
) -> None:
    async with one_bad_one_well(fault=fault) as (balancer, bad, _):
        answer = await balancer.post(CHAT, chat(stream=stream, max_tokens=3))

    assert answer.status == 200
    assert answer.headers["x-edgeserve-node"] == "b-well"
    assert answer.headers["x-edgeserve-attempts"] == "2"
    assert len(bad.told) == 1
    assert (said(answer.body) if stream else answer.text) == "w0 w1 w2"


async def test_a_break_after_content_is_retried_without_streaming() -> None:
    async with one_bad_one_well(fault="break", fault_tokens=2) as (balancer, _, _):
        answer = await balancer.post(CHAT, chat(max_tokens=4))

    assert (answer.status, answer.text) == (200, "w0 w1 w2 w3")
    assert answer.headers["x-edgeserve-attempts"] == "2"


@pytest.mark.parametrize(
    "refusal",
    [Draining(), NoNode("Loading model"), NodeLost("the engine died"),
     Unauthorized("wrong token"), UnknownModel("small", [])],
    ids=lambda refusal: type(refusal).__name__,
)  # fmt: skip
async def test_a_node_that_cannot_is_passed_over(refusal: EdgeserveError) -> None:
    async with one_bad_one_well() as (balancer, bad, _):
        bad.refuse = refusal
        answer = await balancer.post(CHAT, chat(stream=True))

    assert answer.headers["x-edgeserve-node"] == "b-well"
    assert answer.headers["x-edgeserve-attempts"] == "2"


async def test_a_node_that_is_full_after_all_is_no_failure() -> None:
    async with one_bad_one_well() as (balancer, bad, _):
        bad.refuse = FleetBusy(1)
        answer = await balancer.post(CHAT, chat())

    assert answer.headers["x-edgeserve-node"] == "b-well"
    assert answer.headers["x-edgeserve-attempts"] == "1"


async def test_a_single_node_that_is_full_after_all_is_asked_again() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        node.refuse = FleetBusy(1)
        waiting = asyncio.ensure_future(balancer.post(CHAT, chat()))
        await eventually(lambda: len(node.told) >= 2)
        node.refuse = None

        assert (await waiting).status == 200


async def test_a_deadline_that_passes_at_a_full_node_says_when_to_come_back() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        node.refuse = FleetBusy(17)

        headers = {"x-edgeserve-deadline-ms": "400"}
        answer = await balancer.post(CHAT, chat(), headers)

    assert (answer.status, answer.headers["retry-after"]) == (504, "17")


async def test_a_node_that_is_always_full_after_all_is_not_asked_for_ever() -> None:
    async with fake_node() as node, endpoint(node, queue_seconds=0.3) as balancer:
        node.refuse = FleetBusy(17)

        answer = await balancer.post(CHAT, chat())

    assert (answer.status, answer.headers["retry-after"]) == (429, "17")


async def test_an_error_that_may_be_the_engines_is_retried_elsewhere() -> None:
    async with one_bad_one_well(fault="error") as (balancer, _, well):
        answer = await balancer.post(CHAT, chat())

    assert answer.status == 200
    assert len(well.told) == 1


async def test_an_error_on_which_two_engines_agree_is_the_requests_own() -> None:
    async with (
        fake_node("a", Behaviour(fault="error")) as a,
        fake_node("b", Behaviour(fault="error")) as b,
        fake_node("c") as c,
        endpoint(a, b, c) as balancer,
    ):
        answer = await balancer.post(CHAT, chat())

    assert answer.status == 500
    assert answer.error == "made to fail"
    assert answer.headers["x-edgeserve-attempts"] == "2"
    assert c.told == []


async def test_a_prompt_past_the_context_gets_the_engines_own_answer() -> None:
    async with (
        fake_node("pi", Behaviour(context=8)) as node,
        endpoint(node) as balancer,
    ):
        answer = await balancer.post(CHAT, chat("word " * 50))

    assert answer.status == 400
    assert answer.json["error"]["type"] == "exceed_context_size_error"


async def test_a_prompt_past_one_context_goes_to_a_longer_one() -> None:
    async with (
        fake_node("a", Behaviour(context=8)) as short,
        fake_node("b", Behaviour(context=8)) as equally_short,
        fake_node("c", engine=an_engine(context=9999)) as wide,
        endpoint(short, equally_short, wide) as balancer,
    ):
        answer = await balancer.post(CHAT, chat("word " * 50))

    assert (answer.status, answer.headers["x-edgeserve-node"]) == (200, "c")
    assert len(equally_short.told) == 0


async def test_no_more_nodes_are_tried_than_the_settings_allow() -> None:
    async with (
        fake_node("a", Behaviour(fault="reset")) as a,
        fake_node("b", Behaviour(fault="reset")) as b,
        fake_node("c") as c,
        endpoint(a, b, c, attempts=2) as balancer,
    ):
        answer = await balancer.post(CHAT, chat())

    assert answer.status == 502
    assert answer.headers["x-edgeserve-attempts"] == "2"
    assert c.told == []


async def test_when_every_node_has_failed_the_last_reason_is_the_answer() -> None:
    async with fake_node("a") as node, endpoint(node) as balancer:
        node.refuse = NodeLost("the engine died")
        answer = await balancer.post(CHAT, chat())

    assert answer.status == 502
    assert answer.error == "the engine died"
    assert answer.json["error"]["code"] == "node_lost"


@asynccontextmanager
async def wired(
    behaviour: Behaviour, *others: FakeNode
) -> AsyncGenerator[tuple[Endpoint, FakeNode, Cable]]:
    """Run a balancer whose first node hangs on a cable."""
    async with (
        fake_node("a-far", behaviour) as node,
        cable(node.origin) as wire,
        endpoint(wire.url, *others) as balancer,
    ):
        yield balancer, node, wire


async def test_a_node_that_is_gone_but_not_yet_missed_harms_no_request() -> None:
    async with (
        fake_node("b-near") as near,
        wired(Behaviour(), near) as (balancer, _, wire),
    ):
        wire.cut()
        answers = await asyncio.gather(
            *(balancer.post(CHAT, chat(stream=True)) for _ in range(6))
        )

    assert {answer.status for answer in answers} == {200}
    assert {answer.headers["x-edgeserve-node"] for answer in answers} == {"b-near"}


async def test_a_machine_that_dies_before_content_takes_no_request_with_it() -> None:
    slow = Behaviour(prefill=1)
    async with (
        fake_node("b-near") as near,
        wired(slow, near) as (balancer, node, wire),
    ):
        asked = asyncio.ensure_future(balancer.post(CHAT, chat(stream=True)))
        await eventually(lambda: node.engine.busy == 1)

        wire.cut()

        answer = await asked
    assert answer.status == 200
    assert answer.headers["x-edgeserve-node"] == "b-near"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat(stream=True)),
        ("/v1/completions", {"model": "small", "prompt": "x", "stream": True}),
        ("/completion", {"model": "small", "prompt": "x", "stream": True}),
    ],
)
async def test_a_stream_that_breaks_after_content_ends_in_an_error(
    path: str, body: dict[str, Any]
) -> None:
    broken = Behaviour(fault="break", fault_tokens=3)
    async with fake_node("pi", broken) as node, endpoint(node) as balancer:
        answer = await balancer.post(path, body)

    assert answer.status == 200
    last = events(answer.body)[-1]
    assert last["error"]["code"] == "node_lost"
    assert b"[DONE]" not in answer.body


async def test_the_loss_of_the_only_node_is_an_error_at_once_not_after_the_queue() -> (
    None
):
    async with wired(Behaviour()) as (balancer, _, wire):
        wire.cut()
        await balancer.until(lambda fleet: fleet.nodes[0].state == "unreachable")

        answer = await balancer.post(CHAT, chat())

    assert answer.status == 503
    assert "retry-after" in answer.headers
    assert "unreachable" in answer.error


async def test_an_empty_fleet_is_unavailable_and_says_what_to_do() -> None:
    async with endpoint() as balancer:
        answer = await balancer.post(CHAT, chat())

    assert answer.status == 503
    assert "edgeserve nodes" in answer.error


async def test_an_unknown_model_is_an_error_that_lists_the_known_ones() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.post(CHAT, chat(model="huge"))

    assert answer.status == 404
    assert "small, small:Q4_1" in answer.error
    assert answer.json["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"model": 1}', b'{"stream": "yes"}', b"\xff\xfe",
     b'{"messages":' + b"[" * 200_000],
)  # fmt: skip
async def test_a_malformed_body_is_refused(body: bytes) -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.post(CHAT, body)

        assert answer.status == 400
        assert "not valid" in answer.error
        assert (await balancer.post(CHAT, chat())).status == 200


async def test_a_body_past_the_limit_is_refused_with_the_limit() -> None:
    async with fake_node() as node, endpoint(node, body_limit_mib=1) as balancer:
        answer = await balancer.post(CHAT, chat("x" * (2**20 + 1)))

        assert answer.status == 413
        assert "1 MiB" in answer.error
        assert (await balancer.post(CHAT, chat("x" * 2**19))).status == 200


async def test_a_malformed_deadline_is_refused() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.post(CHAT, chat(), {"x-edgeserve-deadline-ms": "soon"})

    assert answer.status == 400


async def test_a_hanging_engine_does_not_outlast_the_callers_deadline() -> None:
    async with one_bad_one_well(fault="hang") as (balancer, bad, _):
        answer = await balancer.post(CHAT, chat(), {"x-edgeserve-deadline-ms": "100"})

        assert answer.status == 504
        await eventually(lambda: bad.engine.busy == 0)


async def test_what_went_wrong_is_in_the_request_log() -> None:
    async with one_bad_one_well(fault="reset") as (balancer, _, _):
        answer = await balancer.post(CHAT, chat())
        id_ = answer.headers["x-edgeserve-request-id"]
        explained = (await balancer.get(f"/edgeserve/v1/requests/{id_}")).json

    first, second = explained["attempts"]
    assert first["node"] == "a-bad"
    assert "broke off" in first["outcome"] or "did not answer" in first["outcome"]
    assert second["outcome"] == "answered"
    reasons = {each["node"]: each["reason"] for each in second["candidates"]}
    assert reasons["a-bad"] == "tried already"
    assert json.dumps(explained).count("hi") == 0, "content is never kept"


async def test_a_long_prompt_survives_a_fault_too() -> None:
    engine = an_engine(context=10**7)
    async with (
        fake_node("a", Behaviour(fault="reset", context=10**7), engine=engine) as a,
        fake_node("b", Behaviour(context=10**7, prefill=1e9), engine=engine) as b,
        endpoint(a, b) as balancer,
    ):
        answer = await balancer.post(CHAT, chat("x" * 2**20, max_tokens=1))

    assert answer.status == 200
    assert answer.headers["x-edgeserve-node"] == "b"
