"""Servers of other programs go on with broken answers once they were seen to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from balancer.probes import continuation
from balancer.probes.continuation import Written, cut, goes_on
from balancer.servers import polling
from edgeserve.cli.nodes.table import node_rows
from edgeserve.config.servers import ServerSetting
from edgeserve.served import Served
from edgeserve.wire import EngineReport
from tests.balancer.broken_streams import Engine, first, text_of
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint, eventually
from tests.fakes.continuing import COUNTED, QUESTION, WritingServer, writing_server
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine
from tests.fakes.servers import OPENAI, TGI, VLLM, listed

WHOLE = "".join(COUNTED)
SPACED = ("One", " two", " three", " four", " five")
FILE = "/models/Small-Q4_1.gguf"
IDLE = {"/metrics": b""}
OPEN = {"continue_final_message": True, "add_generation_prompt": False}
DIED = (
    b'data: {"error": {"message": "EngineCore died", "code": 500}}\n\ndata: [DONE]\n\n'
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuation, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(polling, "EVERY_SECONDS", 0.02)


def engine_of(here: Endpoint, server: WritingServer) -> EngineReport:
    return next(
        each.engine
        for each in here.balancer.state.current.candidates
        if each.origin.port == server.port
    )


def narrow(*servers: WritingServer) -> tuple[ServerSetting, ...]:
    return tuple(ServerSetting(url=each.url, width=1) for each in servers)


async def both_answer(here: Endpoint, one: WritingServer, two: WritingServer) -> None:
    """Have each of them answer a chat."""
    one.gate = two.gate = asyncio.Event()
    asked = [asyncio.ensure_future(here.post(CHAT, chat(stream=True))) for _ in "ab"]
    await eventually(lambda: bool(one.asked and two.asked))
    one.gate.set()
    await asyncio.gather(*asked)


def served_of(here: Endpoint, server: WritingServer) -> Served:
    return engine_of(here, server).served or Served()


async def shown(here: Endpoint, *servers: WritingServer) -> None:
    """Wait until it is known whether they go on."""
    for each in servers:
        await eventually(
            lambda each=each: bool(  # type: ignore[misc]
                (served := served_of(here, each)).resumes or served.restarts
            )
        )


@pytest.mark.parametrize(
    ("answers", "fields"),
    [
        pytest.param({**VLLM, **IDLE}, {"opens": OPEN}, id="vllm"),
        pytest.param({**TGI, **IDLE}, {"trims": True}, id="tgi"),
        pytest.param(OPENAI, {}, id="openai"),
    ],
)
@pytest.mark.parametrize("mark", [None, b"", DIED], ids=["lost", "short", "error"])
async def test_an_answer_that_breaks_off_goes_on_at_a_server_that_was_seen_to(
    answers: Any, fields: Mapping[str, Any], mark: bytes | None
) -> None:
    async with (
        writing_server(answers, mark=mark, **fields) as one,
        writing_server(answers, mark=mark, **fields) as two,
        endpoint(server_tables=narrow(one, two)) as here,
    ):
        await both_answer(here, one, two)
        await shown(here, one, two)
        one.breaks = two.breaks = [2]  # whichever is asked first
        answered = await here.post(CHAT, chat(stream=True))
        again = await here.post(CHAT, chat(max_tokens=400))

    assert text_of(answered.body) == again.text == WHOLE
    assert answered.body.endswith(b"data: [DONE]\n\n")
    assert b"EngineCore" not in answered.body


@pytest.mark.parametrize(
    ("answers", "fields"),
    [
        pytest.param({**VLLM, **IDLE}, {"opens": None}, id="begins anew"),
        pytest.param(OPENAI, {"opens": OPEN}, id="needs fields of vLLM"),
        pytest.param(
            OPENAI, {"strips": True, "pieces": SPACED}, id="loses white space"
        ),
        pytest.param(OPENAI, {"pieces": ("ab",) * 4}, id="cannot be told"),
    ],
)
async def test_a_server_that_was_not_seen_to_go_on_gets_no_rest_of_an_answer(
    answers: Any, fields: Mapping[str, Any]
) -> None:
    async with (
        writing_server(answers, **fields) as one,
        writing_server(answers, **fields) as two,
        endpoint(server_tables=narrow(one, two)) as here,
    ):
        await both_answer(here, one, two)
        await eventually(lambda: bool(one.probes and two.probes))
        await eventually(lambda: not here.balancer.state.slot_counts.busy(key(here)))
        one.breaks = two.breaks = [2]  # whichever is asked first
        asked = len(one.asked) + len(two.asked)
        answered = await here.post(CHAT, chat(stream=True))
        rest = len(one.asked) + len(two.asked) - asked

    assert b"its answer cannot be continued" in answered.body
    assert b"not seen to go on" in answered.body
    assert text_of(answered.body) == "".join(one.pieces[:2])
    assert rest == 1


def key(here: Endpoint) -> tuple[str, str]:
    return here.balancer.state.current.candidates[0].key


async def test_a_server_is_probed_once_for_each_way_until_it_was_away() -> None:
    async with (
        writing_server(OPENAI, pieces=COUNTED) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        before, untested = engine_of(here, server), served_of(here, server)
        for _ in range(3):
            await here.post(CHAT, chat(stream=True))
        await shown(here, server)
        probed = len(server.probes)
        await here.post("/v1/completions", {"model": "small", "prompt": QUESTION})
        await eventually(lambda: len(served_of(here, server).resumes) == 2)
        nodes = (await here.get("/edgeserve/v1/nodes")).json

        await server.stop()
        await eventually(
            lambda: here.balancer.state.current.fleet.nodes[0].state != "up"
        )
        await server.start()
        await eventually(lambda: engine_of(here, server).epoch > before.epoch)
        away = served_of(here, server)
        await here.post(CHAT, chat(stream=True))
        await shown(here, server)

        assert untested.resumes == untested.restarts == away.resumes == ()
        assert probed == 2
        assert len(server.probes) == 6
        (row,) = node_rows(nodes["nodes"] if isinstance(nodes, dict) else nodes)
        assert "goes on with broken answers: chat, completion" in " ".join(row.below)


@pytest.mark.parametrize("cut_at", range(1, len(COUNTED)))
async def test_an_answer_of_a_server_goes_on_at_a_node_with_the_same_weights(
    cut_at: int,
) -> None:
    answers = {**OPENAI, "/v1/models": listed(FILE)}
    async with writing_server(answers, breaks=[cut_at]) as server, fake_node() as node:
        slow = ServerSetting(url=server.url)
        async with endpoint(node, server_tables=(slow,)) as here:
            # The server is asked for by the name that only it has.
            broken = await here.post(CHAT, chat(model=FILE, stream=True))

    assert text_of(broken.body) == gone_on_at_a_node(cut_at)
    assert broken.body.endswith(b"data: [DONE]\n\n")


async def test_an_answer_of_a_node_goes_on_at_a_server_with_the_same_weights() -> None:
    answers = {**OPENAI, "/v1/models": listed(FILE)}
    half = first(Engine().chat(COUNTED), 4)
    async with writing_server(answers) as server, fake_node() as node:
        known = ServerSetting(url=server.url, last_resort=True)
        async with endpoint(node, server_tables=(known,)) as here:
            node.script = [(b"", "broken")]
            await here.post(CHAT, chat(stream=True))  # the server answers
            await shown(here, server)
            await eventually(
                lambda: all(
                    not each.rank for each in here.balancer.state.current.candidates
                )
            )
            node.script = [(half, "broken")]
            answered = await here.post(CHAT, chat(stream=True))

    assert text_of(answered.body) == WHOLE


def gone_on_at_a_node(words: int) -> str:
    """The server's text so far, and the rest that the fake node writes behind it."""
    rest = "".join(f" w{number}" for number in range(words, 16))
    return "".join(COUNTED[:words]) + rest


async def test_another_type_of_the_model_goes_on_only_where_that_is_allowed() -> None:
    async with writing_server({**VLLM, **IDLE}, breaks=[2] * 9) as server:
        known = ServerSetting(url=server.url)
        for resume, whole in (("same-variant", False), ("any", True)):
            async with (
                fake_node(engine=an_engine(slots=1, busy=1)) as node,
                endpoint(node, server_tables=(known,), resume=resume) as here,
            ):
                asking = here.post(CHAT, chat(stream=True))
                node.change("small:Q4_1", busy=0)
                answered = await asking

                gone_on = text_of(answered.body) == gone_on_at_a_node(2)
                assert gone_on is whole


def test_an_answer_is_cut_before_white_space_in_its_middle() -> None:
    assert cut(("a", "b", " c", "d")) == 2
    assert cut(("a", "b", "c", " d", "e", "f", "g")) == 3
    assert cut(("a", "b", "c", "d")) == 2
    assert cut(("a",)) == cut(()) == 0


def test_only_the_rest_of_an_answer_shows_that_it_goes_on() -> None:
    whole = Written(("One", " two", " \n", "three", " four"), stopped=True)

    def seen(text: str, *, before: str = "One two") -> bool | None:
        return goes_on(before, whole, Written((text,), stopped=True))

    assert seen(" \nthree four")
    assert seen("three four", before="One two \n")
    assert seen(" \nthree four", before="One two \n")
    assert seen("One two \nthree four") is False
    assert seen("three four") is False
    assert seen("") is False
    assert seen(" four", before="One two \nthree fou") is None


def test_what_begins_like_the_whole_answer_shows_nothing() -> None:
    whole = Written(("ha ha ", "ha ha ", "ha ha "), stopped=False)

    assert goes_on("ha ha ", whole, whole) is None
