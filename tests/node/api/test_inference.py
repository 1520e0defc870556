from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from edgeserve.http import Origin, bind, listen, upstream
from edgeserve.openai import ROUTES
from edgeserve.security.tokens import Guard
from edgeserve.wire import VARIANT_HEADER
from node.api.admin import routes
from node.api.inference import InferenceHandler
from node.kept_log import KeptLog
from node.state import NodeState
from tests.fakes.llama import Behaviour, FakeLlama, fake_llama
from tests.node.building import PretendSupervisor, a_node, an_engine
from tests.patience import PATIENCE

CHAT = "/v1/chat/completions"
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
TOKEN = "a-token-of-this-fleet"


@asynccontextmanager
async def serving(
    state: NodeState, token: str | None = None
) -> AsyncGenerator[aiohttp.ClientSession]:
    guard = Guard([token] if token else [], "the fleet token is")
    async with (
        upstream(connect_seconds=30) as ask,
        listen(
            bind("127.0.0.1", 0),
            InferenceHandler(state, ask, guard),
            ROUTES.__contains__,
            routes(state, guard, KeptLog("process")),
            body_limit=2**20,
        ) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        yield client


def engine_at(llama: FakeLlama, **changes: Any) -> PretendSupervisor:
    origin = Origin("127.0.0.1", llama.port)
    return PretendSupervisor(an_engine(**changes), origin)


async def until_idle(supervisor: PretendSupervisor, llama: FakeLlama) -> None:
    async with asyncio.timeout(PATIENCE):
        while supervisor.slots.busy or llama.busy:
            await asyncio.sleep(0.005)


async def test_the_engines_answer_passes_byte_for_byte() -> None:
    async with fake_llama() as llama, serving(a_node(engine_at(llama))) as client:
        async with client.post(CHAT, json=HELLO) as answer:
            through = await answer.json()
        async with client.post(f"{llama.origin}{CHAT}", json=HELLO) as direct:
            plain = await direct.json()

    assert answer.status == 200
    assert answer.content_type == direct.content_type
    assert through["choices"] == plain["choices"]


async def test_the_engine_is_asked_with_its_own_key_and_no_secret_of_ours() -> None:
    behaviour = Behaviour(api_key="engine-key")
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "X-Conversation-Id": "7",
        "Cookie": "a=b",
        "Origin": "https://chat.example",
        "X-Other": "kept",
    }
    async with fake_llama(behaviour) as llama:
        state = a_node(engine_at(llama))
        async with (
            serving(state, TOKEN) as client,
            client.post(CHAT, json=HELLO, headers=headers) as answer,
        ):
            assert answer.status == 200
        seen = llama.requests[0].headers

    assert seen["authorization"] == "Bearer engine-key"
    assert seen["x-other"] == "kept"
    assert not {"cookie", "origin", "x-conversation-id"} & set(seen)


async def test_an_engines_own_error_passes_as_it_is() -> None:
    async with (
        fake_llama() as llama,
        serving(a_node(engine_at(llama))) as client,
        client.post(CHAT, json={**HELLO, "messages": 3}) as answer,
    ):
        body = await answer.json()

    assert answer.status >= 400
    assert "error" in body


async def test_a_stream_arrives_piece_by_piece() -> None:
    behaviour = Behaviour(decode=5)
    async with (
        fake_llama(behaviour) as llama,
        serving(a_node(engine_at(llama))) as client,
        client.post(CHAT, json={**HELLO, "stream": True}) as answer,
    ):
        first = await answer.content.readany()
        unfinished = llama.busy
        behaviour.decode = 10_000.0
        rest = await answer.content.read()

    assert unfinished == 1
    assert first.startswith(b"data: ")
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_more_than_the_slots_is_refused_with_a_time_to_return() -> None:
    async with fake_llama(Behaviour(decode=50, length=500, slots=2)) as llama:
        supervisor = engine_at(llama)
        async with serving(a_node(supervisor)) as client:
            with supervisor.claim(), supervisor.claim():
                async with client.post(CHAT, json=HELLO) as answer:
                    body = await answer.json()

    assert answer.status == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert body["error"]["code"] == "fleet_busy"


async def test_a_client_that_leaves_gives_its_slot_back_and_ends_the_work() -> None:
    async with fake_llama(Behaviour(decode=50, length=5000)) as llama:
        supervisor = engine_at(llama)
        async with serving(a_node(supervisor)) as client:
            async with client.post(CHAT, json={**HELLO, "stream": True}) as answer:
                await answer.content.readany()
                assert supervisor.slots.busy == 1
            await until_idle(supervisor, llama)

        assert llama.counters.cancelled == 1


async def test_an_engine_that_dies_in_mid_stream_cuts_the_answer() -> None:
    behaviour = Behaviour(length=20, fault="die", fault_tokens=5)
    async with fake_llama(behaviour) as llama:
        supervisor = engine_at(llama)
        async with serving(a_node(supervisor)) as client:
            with pytest.raises(aiohttp.ClientPayloadError):
                async with client.post(CHAT, json={**HELLO, "stream": True}) as answer:
                    await answer.content.read()

    assert supervisor.slots.busy == 0


async def test_an_engine_that_is_gone_is_a_lost_node() -> None:
    async with fake_llama() as llama, serving(a_node(engine_at(llama))) as client:
        llama.kill()
        async with client.post(CHAT, json=HELLO) as answer:
            body = await answer.json()

    assert answer.status == 502
    assert body["error"]["code"] == "node_lost"


async def test_the_balancers_header_decides_without_the_body() -> None:
    async with fake_llama() as small, fake_llama() as large:
        state = a_node(engine_at(small), engine_at(large, variant="tiny:Q8_0"))
        headers = {VARIANT_HEADER: "tiny:Q8_0"}
        async with (
            serving(state) as client,
            client.post(CHAT, json={**HELLO, "model": "x"}, headers=headers) as answer,
        ):
            assert answer.status == 200

        assert (len(small.requests), len(large.requests)) == (0, 1)
        assert VARIANT_HEADER not in large.requests[0].headers


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "bad_request"),
        (b'{"model": 3}', 400, "bad_request"),
        (b'{"model": "huge"}', 404, "model_not_found"),
        (b" " * (2**20 + 1), 413, "request_too_large"),
    ],
    ids=["malformed", "wrong type", "unknown model", "too large"],
)
async def test_a_bad_request_is_refused_before_any_engine(
    body: bytes, status: int, code: str
) -> None:
    async with fake_llama() as llama, serving(a_node(engine_at(llama))) as client:
        async with client.post(CHAT, data=io.BytesIO(body)) as answer:
            error = (await answer.json())["error"]

        assert (answer.status, error["code"]) == (status, code)
        assert not llama.requests


async def test_a_node_that_leaves_takes_no_new_work() -> None:
    async with fake_llama() as llama:
        state = a_node(engine_at(llama))
        async with serving(state) as client:
            state.leave()
            async with client.post(CHAT, json=HELLO) as answer:
                body = await answer.json()

    assert answer.status == 503
    assert answer.headers["retry-after"]
    assert body["error"]["code"] == "draining"


async def test_an_engine_that_loads_is_asked_for_later() -> None:
    async with fake_llama() as llama:
        supervisor = engine_at(llama)
        supervisor.state = "loading"
        async with (
            serving(a_node(supervisor)) as client,
            client.post(CHAT, json=HELLO) as answer,
        ):
            assert answer.status == 503
            assert answer.headers["retry-after"]


async def test_an_inference_route_is_post_only() -> None:
    async with serving(a_node()) as client, client.get(CHAT) as answer:
        assert answer.status == 405
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/edgeserve/v1/node", "/v1/models"]
)
async def test_without_the_fleet_token_nothing_is_revealed(path: str) -> None:
    async with serving(a_node(), TOKEN) as client:
        async with client.post(path, json=HELLO) as posted:
            pass
        async with client.get(path) as got:
            pass

    assert 401 in {posted.status, got.status}
    assert 200 not in {posted.status, got.status}


async def test_sixty_callers_never_hold_more_than_the_slots() -> None:
    async with fake_llama(Behaviour(decode=50, length=8)) as llama:
        supervisor = engine_at(llama)
        async with serving(a_node(supervisor)) as client:

            async def ask() -> int:
                async with client.post(CHAT, json=HELLO) as answer:
                    await answer.read()
                    return answer.status

            statuses = await asyncio.gather(*(ask() for _ in range(60)))
            await until_idle(supervisor, llama)

    assert set(statuses) == {200, 429}
    assert llama.deferred == 0


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
async def test_llama_cpps_other_names_are_answered(path: str) -> None:
    async with (
        fake_llama() as llama,
        serving(a_node(engine_at(llama))) as client,
        client.post(path, json={**HELLO, "prompt": "a"}) as answer,
    ):
        body = await answer.json()

    assert answer.status == 200
    assert ("choices" in body) == path.startswith("/chat")


async def test_odd_fields_reach_the_engine_as_they_are_meant() -> None:
    odd = {**HELLO, "model": None, "stream": 0, "max_tokens": 3.0}
    async with fake_llama() as llama, serving(a_node(engine_at(llama))) as client:
        async with client.post(CHAT, json=odd) as answer:
            await answer.read()

        assert answer.status == 200
        assert llama.requests[0].body["max_tokens"] == 3
        assert llama.requests[0].body["stream"] is False


@pytest.mark.parametrize("path", ["/props", "/slots?model=tiny"])
async def test_what_takes_no_slot_is_answered_while_all_are_busy(path: str) -> None:
    async with fake_llama() as llama:
        supervisor = engine_at(llama)
        supervisor.slots.total = 0
        async with (
            serving(a_node(supervisor)) as client,
            client.get(path) as answer,
        ):
            assert answer.status == 200
            assert answer.headers["content-type"].startswith("application/json")


async def test_a_wrong_path_at_a_node_says_what_may_be_meant() -> None:
    async with serving(a_node()) as client, client.post("/v1/v1/messages") as answer:
        body = await answer.json()

    assert answer.status == 404
    assert "did you mean /v1/messages?" in body["error"]["message"]
