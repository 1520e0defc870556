"""Errors of servers, in whatever shape, become errors as nodes give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from balancer.health.faults import failure_of
from balancer.servers.client import as_ours
from balancer.servers.server import server_of
from edgeserve.config.servers import ServerSetting
from edgeserve.openai import retry_after
from edgeserve.servers.requests import portable_body
from tests.balancer.endpoint import CHAT, a_secret, chat, endpoint
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine
from tests.fakes.servers import OPENAI, TGI, fake_server

SERVER = server_of(ServerSetting(url="http://gpu:8000"))

VLLM_LONG = {
    "error": {
        "message": "This model's maximum context length is 2048 tokens. However, you",
        "type": "BadRequestError",
        "code": 400,
    }
}
TGI_LONG = {
    "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4",
    "error_type": "validation",
}


@pytest.mark.parametrize(
    ("status", "body", "step", "said"),
    [
        (400, VLLM_LONG, "longer", "maximum context length"),
        (422, TGI_LONG, "longer", "must be <= 4"),
        (422, {"error": "`top_p` must be < 1", "error_type": "v"}, "pass", "top_p"),
        (429, {"error": "Model is overloaded"}, "full", "overloaded"),
        (404, {"detail": "Not Found"}, "elsewhere", "Not Found"),
        (401, {"error": "Unauthorized"}, "elsewhere", "refuses the key"),
        (400, {"detail": "Unexpected fields: {'x'}"}, "pass", "Unexpected fields"),
        (400, {"detail": [{"loc": ["body"], "msg": "bad"}]}, "pass", "bad"),
        (503, b"", "elsewhere", "no reason given"),
        (500, b"<html>oh</html>", "pass", "<html>oh</html>"),
        (500, [1], "pass", "[1]"),
    ],
)
def test_an_error_leads_to_the_same_step_as_a_nodes(
    status: int, body: Any, step: str, said: str
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    ours = as_ours(SERVER, status, raw)

    assert failure_of(*ours).next_step == step
    assert said in json.loads(ours[1])["error"]["message"]


def test_a_failed_generation_of_tgi_is_its_engines_fault() -> None:
    body = b'{"error":"Request failed during generation","error_type":"generation"}'

    assert failure_of(*as_ours(SERVER, 424, body)).fault == "doubt"


def test_a_field_gets_the_name_that_its_server_knows() -> None:
    tgi = an_engine("m", kind="server", build="tgi")
    body = portable_body(b'{"model":"x","max_completion_tokens":5}', tgi, {})

    assert json.loads(body) == {"model": tgi.variant, "max_tokens": 5}


@pytest.mark.parametrize(
    "failing",
    [
        pytest.param((429, {"error": "Model is overloaded"}), id="429"),
        pytest.param((503, b"Service Unavailable"), id="503"),
        pytest.param((500, b"Internal Server Error"), id="500 without JSON"),
        pytest.param((404, {"detail": "Not Found"}), id="404"),
        pytest.param((401, {"error": "Unauthorized"}), id="401"),
        pytest.param((400, VLLM_LONG), id="too long"),
        pytest.param(b"", id="200 and empty"),
        pytest.param(b"<html>", id="200 and no JSON"),
        pytest.param({"error": "Unexpected endpoint"}, id="200 and an error"),
        pytest.param((307, b""), id="a redirect"),
    ],
)
async def test_a_node_answers_where_a_server_cannot(failing: Any) -> None:
    async with (
        fake_server(OPENAI, posts={CHAT: failing}) as server,
        fake_node("pi", engine=an_engine(context=8192)) as node,
        endpoint(node, servers=(server.url,)) as here,
    ):
        answered = await here.post(CHAT, chat())

    assert server.asked
    assert answered.status == 200
    assert answered.headers["x-edgeserve-node"] == "pi"


@pytest.mark.parametrize(("said", "told"), [("17", "17"), ("soon", "5")])
async def test_a_client_is_told_when_the_only_server_asks_it_to_come_back(
    said: str, told: str
) -> None:
    failing = (503, {"error": "Model is overloaded"}, {"retry-after": said})
    async with (
        fake_server(OPENAI, posts={CHAT: failing}) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        answered = await here.post(CHAT, chat())

    assert server.asked
    assert (answered.status, answered.headers["retry-after"]) == (503, told)


@pytest.mark.parametrize("said", ["", "soon", "-1", "²", "9" * 5000])
def test_a_time_to_come_back_that_is_none_is_ignored(said: str) -> None:
    assert retry_after({"retry-after": said}) is None


async def test_the_limit_of_an_answer_is_sent_as_servers_call_it() -> None:
    async with fake_server(TGI) as server, endpoint(servers=(server.url,)) as here:
        await here.post(CHAT, chat(n_predict=100))
        await here.post(CHAT, chat(max_completion_tokens=100))

    assert [body["max_tokens"] for _, _, body in server.asked] == [100, 100]
    assert "max_completion_tokens" not in server.asked[1][2]


@pytest.mark.parametrize("status", [400, 401, 500, 200])
async def test_an_error_that_repeats_the_key_does_not_show_it_to_clients(
    tmp_path: Path, status: int
) -> None:
    key = "a-key-that-is-nowhere-to-be-seen"
    failing = (status, {"error": {"message": f"no such key: {key}"}})
    async with fake_server(OPENAI, key=key, posts={CHAT: failing}) as server:
        file = str(a_secret(tmp_path, "key", key))
        tables = (ServerSetting(url=server.url, key_file=file),)
        async with endpoint(server_tables=tables, attempts=1) as here:
            answered = await here.post(CHAT, chat())

    assert server.asked
    said = answered.json["error"]["message"]
    assert "no such key: ***" in said
    assert key not in " ".join((said, *here.heard))


async def test_a_client_is_told_when_a_server_without_a_slot_asks_it_back() -> None:
    failing = (429, {"error": "Model is overloaded"}, {"retry-after": "17"})
    async with (
        fake_server(OPENAI, posts={CHAT: failing}) as server,
        endpoint(servers=(server.url,), queue_seconds=0.2) as here,
    ):
        answered = await here.post(CHAT, chat())

    assert server.asked
    assert answered.status in {429, 504}
    assert answered.headers["retry-after"] == "17"
