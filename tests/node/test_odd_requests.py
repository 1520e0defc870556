"""No request makes a node break: every route, every odd shape."""

from __future__ import annotations

import aiohttp
import pytest

from edgeserve.openai import ROUTES
from edgeserve.security.tokens import Guard
from node.api.admin import routes
from node.kept_log import KeptLog
from tests.edgeserve.http.odd import TARGETS, answers, odd, request
from tests.fakes.llama import Behaviour, fake_llama
from tests.node.api.test_inference import engine_at, serving
from tests.node.building import a_node

STREAM = "/edgeserve/v1/events"


def own() -> list[tuple[str, str]]:
    table = routes(a_node(), Guard((), ""), KeptLog("process"))
    return [(each.method, each.path) for each in table if each.path != STREAM]


async def test_whatever_comes_is_answered() -> None:
    shapes = [each for method, path in own() for each in odd(method, path)]
    shapes += [request("GET", each) for each in TARGETS]
    async with serving(a_node()) as client:
        unfit = await answers(await port_of(client), shapes)

    assert unfit == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/tokenize"])
async def test_an_engines_route_answers_whatever_comes(path: str) -> None:
    async with (
        fake_llama(Behaviour(api_key="engine-key")) as llama,
        serving(a_node(engine_at(llama))) as client,
    ):
        unfit = await answers(await port_of(client), odd("POST", path))

    assert unfit == []


async def test_every_engines_route_answers_an_odd_body() -> None:
    shapes = [request("POST", path, body=b"[" * 9_000) for path in ROUTES]
    async with (
        fake_llama(Behaviour(api_key="engine-key")) as llama,
        serving(a_node(engine_at(llama))) as client,
    ):
        unfit = await answers(await port_of(client), shapes)

    assert unfit == []


async def port_of(client: aiohttp.ClientSession) -> int:
    async with client.get("/health") as answer:
        return answer.url.port or 0
