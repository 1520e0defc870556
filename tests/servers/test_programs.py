"""What clients of a balancer may expect of each server of another program."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest

from tests.balancer.endpoint import CHAT, Answered, Endpoint, chat, endpoint
from tests.servers.programs import (
    MODEL,
    PROGRAMS,
    Program,
    Running,
    Weights,
    needs,
    serving,
)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

STORY = "Write a long story about a fox."

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24}


@pytest.fixture(
    scope="module",
    params=[pytest.param(each, marks=needs(each.name)) for each in PROGRAMS],
    ids=lambda each: each.name,
)
def server(request: pytest.FixtureRequest, weights: Weights) -> Iterator[Running]:
    """One of the servers, for all tests."""
    program: Program = request.param
    with serving(program, weights) as running:
        yield running


@asynccontextmanager
async def behind(server: Running, **fields: Any) -> AsyncGenerator[Endpoint]:
    """Run a balancer that knows this server alone."""
    async with endpoint(server_tables=(server.setting(**fields),)) as here:
        yield here


async def ask(here: Endpoint, words: str = "Say hello.", **fields: Any) -> Answered:
    return await here.post(CHAT, chat(words, MODEL, **{**GREEDY, **fields}))


def events(body: bytes) -> list[dict[str, Any]]:
    """Return the events of a stream, which has to end as OpenAI's do."""
    *found, end = [line[6:] for line in body.splitlines() if line.startswith(b"data: ")]
    assert end == b"[DONE]"
    return [json.loads(each) for each in found]


def streamed_text(body: bytes) -> str:
    deltas = (each["choices"][0]["delta"] for each in events(body) if each["choices"])
    return "".join(each.get("content") or "" for each in deltas)


async def test_it_is_recognised_with_its_model_and_context(server: Running) -> None:
    async with behind(server) as here:
        (found,) = here.balancer.state.current.candidates
        listed = (await here.get("/v1/models")).json["data"]

    assert found.engine.build == server.program.kind
    assert [each["id"].lower() for each in listed] == [MODEL.lower()]
    assert server.program.context in {0, found.engine.context}


async def test_its_answers_are_its_own_whole_and_streamed(server: Running) -> None:
    own = await asyncio.to_thread(server.chat, "Say hello.", max_tokens=24)
    async with behind(server) as here:
        whole = await ask(here)
        streamed = await ask(here, stream=True, stream_options={"include_usage": True})

    assert whole.text == streamed_text(streamed.body) == own
    assert whole.json["usage"]["completion_tokens"] == 24
    assert events(streamed.body)[-1]["usage"]["completion_tokens"] == 24


async def test_it_completes_texts(server: Running) -> None:
    body = {"model": MODEL, "prompt": "Once upon a time", **GREEDY}
    fields = {**body, "model": await asyncio.to_thread(server.model)}
    _, own = await asyncio.to_thread(server.ask, "POST", "/v1/completions", **fields)
    async with behind(server) as here:
        answer = await here.post("/v1/completions", body)

    assert answer.status == 200
    assert answer.json["choices"][0]["text"] == json.loads(own)["choices"][0]["text"]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_it_refuses_is_an_error_of_openais_form(
    server: Running, stream: bool
) -> None:
    fields, said = server.program.refuses
    async with behind(server) as here:
        answer = await ask(here, stream=stream, **fields)
        after = await ask(here)

    assert answer.status in {400, 422}
    assert said in answer.error
    assert set(answer.json["error"]) >= {"message", "type", "code"}
    assert after.status == 200


async def test_a_client_that_hangs_up_frees_it(server: Running) -> None:
    fields = {**GREEDY, "max_tokens": server.program.long}
    clock = asyncio.get_running_loop().time
    async with behind(server, width=1) as here:
        began = clock()
        whole = await ask(here, STORY, **fields)
        seconds = clock() - began
        body = chat(STORY, MODEL, stream=True, **fields)
        async with here.session.post(CHAT, json=body) as answer:
            await answer.content.readuntil(b"content")
        async with asyncio.timeout(seconds * 0.6):
            while await asyncio.to_thread(busy, server) > 0.3:
                pass
        after = await ask(here)

    assert whole.json["usage"]["completion_tokens"] == server.program.long
    assert after.status == 200


def busy(server: Running) -> float:
    """Return the share of a core that its busiest process takes."""
    processes = server.tree()
    for each in processes:
        share(each, None)
    psutil.Process().cpu_percent(0.3)
    return max(share(each, None) for each in processes)


def share(process: psutil.Process, seconds: float | None) -> float:
    try:
        return process.cpu_percent(seconds) / 100
    except psutil.NoSuchProcess:
        return 0.0


async def test_a_wrong_key_is_said_and_the_right_one_serves(server: Running) -> None:
    if not server.program.key:
        pytest.skip("it has no key")
    async with endpoint(
        server_tables=(server.setting(key_file=""),), wait=False
    ) as here:
        await here.until(lambda fleet: bool(fleet.addresses[server.url].problem))
        said = here.balancer.state.current.fleet.addresses[server.url].problem
    async with behind(server) as here:
        answer = await ask(here)

    assert "name the file with its key as `key_file`" in (said or "")
    assert answer.status == 200
