"""Servers whose list of models lies, babbles or falls silent: one sentence says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from balancer.servers import polling
from edgeserve.servers import asking
from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.fakes.dialects.base import MODELS, SAID, Dialect, Json
from tests.fakes.dialects.running import DIALECTS
from tests.fakes.dialects.server import (
    Answer,
    Asked,
    LightServer,
    answer,
    light_server,
)


@asynccontextmanager
async def listing(
    models: Any, dialect: Dialect | None = None
) -> AsyncGenerator[LightServer]:
    """Serve a dialect with another list of models."""
    plain = dialect or Dialect()

    async def handle(asked: Asked) -> Answer:
        if asked.method == "GET" and asked.path.endswith("/models"):
            return answer(models)
        return plain.answer(asked)

    async with light_server(handle) as server:
        yield server


async def refusal(server: LightServer) -> str:
    """Return what is said of a server that cannot be used."""
    async with endpoint(servers=(server.url,), wait=False) as here:
        await here.until(lambda f: any(each.problem for each in f.addresses.values()))
        (address,) = here.balancer.state.current.fleet.addresses.values()
        return address.problem or ""


LISTS: dict[str, tuple[Any, str]] = {
    "an error to every path": ({"error": "Unexpected endpoint"}, "is its URL right?"),
    "empty": (Answer(), "200 with an empty body: it may lack a model; load one"),
    "a page": (Answer(200, b"<html>", "text/html"), "text/html, no JSON object"),
    "a failure": (answer(b"Internal Server Error", 500), "see its log"),
    "a redirect": (
        Answer(308, headers={"location": "https://b/v1"}),
        "points to https://b/v1; name that URL",
    ),
    "a redirect of the list": (
        Answer(302, headers={"location": "https://b/v1/models"}),
        "points to https://b/v1; name that URL",
    ),
    "no list": ({"data": "small"}, "without a list of models"),
    "ids of other types": ({"data": [{"id": 1}, {"id": None}, "a", 5]}, "without a li"),
    "ids with control characters": ({"data": [{"id": "a\n\x1b[31mb"}]}, "without a li"),
    "ids of a megabyte": ({"data": [{"id": "a" * 2**20}]}, "without a list"),
    "deep": (Answer(200, b"[" * 100_000), "no JSON object"),
    "half a character": (Answer(200, b'{"data": [{"id": "\xc3"}]}'), "no JSON object"),
}


@pytest.mark.parametrize("lie", LISTS)
async def test_a_list_of_no_use_gets_one_sentence(lie: str) -> None:
    models, said = LISTS[lie]
    async with listing(models) as server:
        why = await refusal(server)

    assert said in why
    assert f"GET {MODELS} of {server.url} was answered" in why
    assert "\n" not in why


async def test_silence_and_slow_bytes_get_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(polling, "ASK_SECONDS", 0.2)
    never = asyncio.Event()
    slow = Answer(200, [b" ", b" ", b" "])
    async with listing(slow) as server:
        server.gate = never
        why = await refusal(server)

    assert f"{server.url} did not answer within 0.2 s" in why
    assert "see its log" in why


async def test_a_list_without_end_gets_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "LARGEST", 1000)
    async with listing(Answer(200, [b" " * 600] * 9)) as server:
        why = await refusal(server)

    assert f"GET {MODELS} of {server.url} was answered with more than 1000" in why


def card(id_: Any, **fields: Any) -> Json:
    return {"id": id_, "object": "model", **fields}


async def test_what_is_usable_of_a_damaged_list_is_used() -> None:
    good = card("org/small", owned_by=5, max_model_len=-1)
    bad = [card(7), None, card("x" * 300), card("a\x00b"), card("org/small"), [good]]
    async with (
        listing({"data": [*bad, good, good]}) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        (node,) = here.balancer.state.current.fleet.nodes
        assert [each.id for each in node.report.engines] == ["org/small"]
        assert (await here.post(CHAT, chat())).text == SAID


async def test_of_ten_thousand_models_the_first_thousand_are_used() -> None:
    many = [card(f"m{number}") for number in range(10_000)]
    async with (
        listing({"data": many}) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        (node,) = here.balancer.state.current.fleet.nodes
        notes = " ".join(node.report.problems)

    assert len(node.report.engines) == 1000
    assert "10000 models" in notes


NONSENSE: Json = {"a": [None, {"b": -1}]}
JUNK: tuple[Any, ...] = (
    b"",
    b"<html>",
    b"[" * 50_000,
    b"\xc3",
    b"null",
    b"NaN",
    {},
    [],
    [1],
    NONSENSE,
)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.name)
async def test_nonsense_beside_the_list_of_models_is_not_believed(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "EVERY_SECONDS", 0.001)
    junk = list(JUNK)
    told = dialect.gets()

    async def handle(asked: Asked) -> Answer:
        is_health = "health" in asked.path or asked.path == "/readyz"
        if asked.method == "POST" or asked.path == MODELS or is_health:
            return dialect.answer(asked)
        if asked.path not in told or not junk:
            return dialect.unknown(asked)
        return answer(junk.pop())

    async with (
        light_server(handle) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        answered = await here.post(CHAT, chat(model=dialect.model))
        (node,) = here.balancer.state.current.fleet.nodes

    assert answered.text == SAID
    assert all(0 < each.slots <= 4096 for each in node.report.engines)


HUGE = b" 1e400\n", b" NaN\n", b" -5\n", b" 1e30\n", b'{a="b"} 7 8 9\n', b"\n"


@pytest.mark.parametrize("number", HUGE)
async def test_metrics_that_count_nonsense_count_nothing(number: bytes) -> None:
    vllm = next(each for each in DIALECTS if each.kind == "vllm")

    async def handle(asked: Asked) -> Answer:
        if asked.path == "/metrics":
            return answer(b"vllm:num_requests_running" + number)
        return vllm.answer(asked)

    async with (
        light_server(handle) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        (node,) = here.balancer.state.current.fleet.nodes

    assert {each.busy for each in node.report.engines} <= {0, 9}
