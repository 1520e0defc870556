"""A context that no server tells is not limited by us, but learned from refusals."""

from __future__ import annotations

from typing import Any

import pytest

from balancer.servers import polling
from balancer.servers.client import context_in
from edgeserve.wire import EngineReport
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint, eventually
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine
from tests.fakes.servers import OPENAI, fake_server


def engine_of_server(here: Endpoint) -> EngineReport:
    return next(
        each.engine
        for each in here.balancer.state.current.candidates
        if each.engine.kind == "server"
    )


def refusal(message: str) -> dict[str, Any]:
    return {CHAT: (400, {"error": {"message": message, "code": 400}})}


async def test_a_long_prompt_is_tried_where_the_context_is_unknown() -> None:
    async with fake_server(OPENAI) as server, endpoint(servers=(server.url,)) as here:
        answered = await here.post(CHAT, chat("word " * 8000))
        said = (await here.get("/edgeserve/v1/nodes")).body.decode()

    assert answered.status == 200
    assert engine_of_server(here).context == 0
    assert "its context is unknown" in said


async def test_a_refusal_that_names_the_context_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(polling, "EVERY_SECONDS", 0.02)
    said = "This model's maximum context length is 100 tokens."
    long = an_engine("small:Q4_1", context=9000)
    async with (
        fake_server(OPENAI, posts=refusal(said)) as server,
        fake_node("pi", engine=long) as node,
        endpoint(node, servers=(server.url,)) as here,
    ):
        for _ in range(9):
            answered = await here.post(CHAT, chat("word " * 300))
            assert answered.headers["x-edgeserve-node"] == "pi"
            if server.asked:
                break
        await eventually(lambda: engine_of_server(here).context == 100)
        before = len(server.asked)
        await here.post(CHAT, chat("word " * 300))

    assert before == len(server.asked) == 1


async def test_a_refusal_without_a_number_bounds_what_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(polling, "EVERY_SECONDS", 0.02)
    async with (
        fake_server(OPENAI, posts=refusal("prompt is too long")) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        refused = await here.post(CHAT, chat("word " * 400))
        await eventually(lambda: bool(engine_of_server(here).served.too_long))  # type: ignore[union-attr]
        del server.posts[CHAT]
        answered = await here.post(CHAT, chat("word " * 800))
        each = here.balancer.state.current.candidates[0]
        await eventually(lambda: engine_of_server(here).served.too_long > 1000)  # type: ignore[union-attr]

    assert refused.status == 400
    assert answered.status == 200  # it alone can know
    assert each.engine.context == 0


@pytest.mark.parametrize(
    ("message", "context"),
    [
        ("This model's maximum context length is 2048 tokens. However", 2048),
        ("longer than the model's context length (4096 tokens).", 4096),
        ("exceeds the model's maximum context length of 512 tokens", 512),
        ("`inputs` tokens + `max_new_tokens` must be <= 1024. Given: 9", 1024),
        ("a context length of only 4096 tokens", 4096),
        ("prompt is too long", 0),
    ],
)
def test_the_context_is_read_from_each_servers_words(
    message: str, context: int
) -> None:
    assert context_in(message) == context
