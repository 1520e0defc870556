"""The relay to adopted servers leads to nothing else, and gives nothing away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgeserve.config.servers import ServerSetting
from edgeserve.errors import NotProven
from edgeserve.http import upstream
from edgeserve.http.channel.opening import FleetChannel
from edgeserve.http.types import Upstream, origin_of
from edgeserve.security.certificates import fleet_context
from node.engines.process import free_port
from tests.balancer.endpoint import a_secret
from tests.fakes.servers import ANSWER, OPENAI, VLLM, FakeServer, fake_server
from tests.fakes.tokens import TOKEN, GivenTokens, report_of
from tests.node.adopter import Adopter, adopter, quick
from tests.patience import PATIENCE

pytestmark = pytest.mark.usefixtures(quick.__name__)
__all__ = ["quick"]

CHAT = {"model": "Qwen/Small", "messages": []}


async def raw(port: int, target: str, method: str = "GET") -> tuple[int, bytes]:
    """Ask for a target as it stands."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    writer.write(f"{head}content-length: 0\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    return int(answer.split()[1]), answer


async def test_what_is_adopted_is_in_the_log_that_balancers_show(
    tmp_path: Path,
) -> None:
    async with fake_server(VLLM) as server, adopter(tmp_path, server.url) as node:
        await node.until(1)
        async with node.client.get("/edgeserve/v1/log") as answer:
            kept = await answer.text()

    assert f"adopts vllm at {server.url}" in kept


async def test_answers_come_through_with_their_status_and_query(
    tmp_path: Path,
) -> None:
    answers = {**VLLM, "/odd": (418, {"error": "teapot"}), "/": b"hello"}
    async with fake_server(answers) as server, adopter(tmp_path, server.url) as node:
        await node.until(1)
        base = f"/edgeserve/v1/servers/{server.port}"
        async with node.client.get(f"{base}/odd?a=b") as odd:
            assert (odd.status, await odd.json()) == (418, {"error": "teapot"})
        async with node.client.get(f"{base}/") as root:
            assert await root.read() == b"hello"
        async with node.client.get(base) as root:
            assert await root.read() == b"hello"
        async with node.client.post(f"{base}/v1/chat/completions", json=CHAT) as chat:
            assert (await chat.json())["choices"]

    assert server.looked[-3:] == ["/odd", "/", "/"]


def chat_path(server: FakeServer) -> str:
    """Where a node relays chats to a server."""
    return f"/edgeserve/v1/servers/{server.port}/v1/chat/completions"


@asynccontextmanager
async def half_answered(folder: Path) -> AsyncGenerator[tuple[Adopter, str]]:
    """Relay a stream that stops in its middle for the block, and then comes whole."""
    gate = asyncio.Event()
    async with (
        fake_server(VLLM, gate=gate) as server,
        adopter(folder, server.url) as node,
    ):
        await node.until(1)
        path = chat_path(server)
        async with node.client.post(path, json={**CHAT, "stream": True}) as answer:
            first = await answer.content.readexactly(len(b"".join(ANSWER[:2])))
            yield node, path
            gate.set()
            assert first + await answer.content.read() == b"".join(ANSWER)


async def test_a_stream_passes_event_by_event(tmp_path: Path) -> None:
    async with half_answered(tmp_path):
        pass


async def test_a_node_that_leaves_lets_relayed_answers_end_and_takes_no_others(
    tmp_path: Path,
) -> None:
    async with half_answered(tmp_path) as (node, path):
        node.stop.set()
        await node.draining()
        async with node.client.post(path, json=CHAT) as refused:
            assert refused.status == 503


@pytest.mark.parametrize(
    "rest",
    [
        "/../../node", "/v1/../../x", "/./v1", "/..", "/%2e%2e/x", "/v1%2f..%2fx",
        "//evil:80/x", "/http://evil/x", "/v1\\..\\x", "@evil:80/", ":80/", "/a;b",
        "/v1//models",
    ],
)  # fmt: skip
async def test_only_plain_paths_pass(tmp_path: Path, rest: str) -> None:
    async with fake_server(OPENAI) as server, adopter(tmp_path, server.url) as node:
        await node.until(1)
        looked = len(server.looked)
        status, answer = await raw(
            node.port, f"/edgeserve/v1/servers/{server.port}{rest}"
        )

        assert status in {400, 404}, answer
        assert len(server.looked) == looked


async def test_only_ports_that_the_node_reports_pass(tmp_path: Path) -> None:
    async with (
        fake_server(OPENAI) as server,
        fake_server(OPENAI) as secret,
        adopter(tmp_path, server.url) as node,
    ):
        await node.until(1)
        for port in (secret.port, node.port, 22, 99999, "x"):
            status, answer = await raw(
                node.port, f"/edgeserve/v1/servers/{port}/v1/models"
            )
            assert status == 404, answer
        absolute = f"http://127.0.0.1:{secret.port}/v1/models"
        status, answer = await raw(node.port, absolute)
        assert b'"small"' not in answer

        assert secret.looked == []


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "OPTIONS", "HEAD"])
async def test_only_get_and_post_pass(tmp_path: Path, method: str) -> None:
    async with fake_server(OPENAI) as server, adopter(tmp_path, server.url) as node:
        await node.until(1)
        looked = len(server.looked)
        status, _ = await raw(
            node.port, f"/edgeserve/v1/servers/{server.port}/api/delete", method
        )

        assert status == 405
        assert len(server.looked) == looked
        assert not server.asked


SECRETS = {
    "authorization": "Bearer the-clients",
    "x-api-key": "the-clients",
    "cookie": "session=1",
    "x-forwarded-for": "10.0.0.9",
    "x-edgeserve-request-id": "r1",
    "x-conversation-id": "c1",
    "x-request-id": "r1",
}


async def test_a_server_gets_its_own_key_and_nothing_of_the_clients(
    tmp_path: Path,
) -> None:
    key = a_secret(tmp_path, "key", "its-own")
    async with fake_server(VLLM, key="its-own") as server:
        setting = ServerSetting(url=server.url, key_file=str(key))
        async with adopter(tmp_path, adopt_tables=(setting,)) as node:
            await node.until(1)
            path = chat_path(server)
            async with node.client.post(path, json=CHAT, headers=SECRETS) as answer:
                assert answer.status == 200

    (_, headers, _) = server.asked[0]
    got = {name.lower() for name in headers}
    assert headers["authorization"] == "Bearer its-own"
    assert headers["x-request-id"] == "r1"
    assert not got & (SECRETS.keys() - {"authorization", "x-request-id"})


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async with fake_server(OPENAI) as server, fake_server(OPENAI) as secret:
        server.redirects["/there"] = f"{secret.url}/v1/models"
        async with adopter(tmp_path, server.url) as node:
            await node.until(1)
            path = f"/edgeserve/v1/servers/{server.port}/there"
            async with node.client.get(path, allow_redirects=False) as answer:
                assert answer.status == 307

    assert secret.looked == []


async def test_the_relay_needs_the_proof_of_the_fleet_token(tmp_path: Path) -> None:
    token = a_secret(tmp_path, "token", TOKEN)
    async with fake_server(OPENAI) as server:
        port = free_port()
        async with adopter(
            tmp_path, server.url, port=port, token_file=token, host="127.0.0.1"
        ) as node:
            url = f"https://127.0.0.1:{port}"
            target = f"/edgeserve/v1/servers/{server.port}/v1/models"
            await until_adopted(url)
            looked = len(server.looked)
            plain, answer = await raw(node.port, target)
            assert b'"small"' not in answer
            assert plain >= 400
            async with upstream(
                connect_seconds=PATIENCE, tls=fleet_context()
            ) as unproven:
                status, body = await asked(unproven, url, target)
                assert status == 401, body
            with pytest.raises(NotProven):
                await proving(url, target, "another-token-of-a-stranger")
            assert len(server.looked) == looked

            status, body = await proving(url, target, TOKEN)
            assert (status, json.loads(body)["data"][0]["id"]) == (200, "small")


async def until_adopted(url: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not (await report_of(url, TOKEN)).servers:
            await asyncio.sleep(0.02)


async def proving(url: str, target: str, token: str) -> tuple[int, bytes]:
    """Ask as a balancer with a token does."""
    channel = FleetChannel(GivenTokens(token))
    async with upstream(connect_seconds=PATIENCE, channel=channel) as pool:
        return await asked(pool, url, target)


async def asked(pool: Upstream, url: str, target: str) -> tuple[int, bytes]:
    async with pool.ask(origin_of(url, 0), "GET", target, {}) as answer:
        return answer.status, await answer.read()


async def test_a_refusal_that_repeats_the_key_does_not_give_it_away(
    tmp_path: Path,
) -> None:
    key = "a-key-that-stays-here"
    answers = {**VLLM, "/odd": (401, {"error": f"wrong key {key}"})}
    file = str(a_secret(tmp_path, "server-key", key))
    async with fake_server(answers, key=key) as server:
        place = ServerSetting(url=server.url, key_file=file)
        async with adopter(tmp_path, adopt_tables=(place,)) as node:
            await node.until(1)
            path = f"/edgeserve/v1/servers/{server.port}/odd"
            async with node.client.get(path) as odd:
                shown = await odd.json()

    assert shown == {"error": "wrong key ***"}
