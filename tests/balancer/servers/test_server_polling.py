"""Servers are looked at again and again; what they do wrong is said, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from balancer.fleet.members import Fleet
from balancer.servers import polling
from edgeserve.config.servers import ServerSetting
from edgeserve.servers import asking
from tests.balancer.endpoint import Endpoint, endpoint, everyone_up
from tests.fakes.servers import OPENAI, VLLM, FakeServer, fake_server, listed


@asynccontextmanager
async def a_port(pieces: list[bytes]) -> AsyncGenerator[str]:
    """Answer every connection with these bytes, and leave it open."""
    left = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            await left.wait()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        left.set()
        server.close()
        await server.wait_closed()


def lost(fleet: Fleet) -> bool:
    return all(each.state == "unreachable" for each in fleet.addresses.values())


def why(here: Endpoint) -> str:
    (address,) = here.balancer.state.current.fleet.addresses.values()
    return address.problem or ""


async def test_a_server_that_never_answers_is_said_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(polling, "ASK_SECONDS", 0.2)
    async with a_port([]) as url, endpoint(servers=(url,), wait=False) as here:
        await here.until(lost)

        assert "did not answer within 0.2 s" in why(here)


async def test_an_answer_without_end_is_not_read_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "LARGEST", 1000)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
    async with (
        a_port([head, b"x" * 5000]) as url,
        endpoint(servers=(url,), wait=False) as here,
    ):
        await here.until(lost)

        assert "perhaps without end" in why(here)


@asynccontextmanager
async def polled(
    monkeypatch: pytest.MonkeyPatch, server: FakeServer
) -> AsyncGenerator[Endpoint]:
    """Have a server in a fleet that looks at it often."""
    monkeypatch.setattr(polling, "EVERY_SECONDS", 0.02)
    async with endpoint(servers=(server.url,)) as here:
        yield here


async def test_models_come_and_go_with_the_servers_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fake_server(OPENAI) as server, polled(monkeypatch, server) as here:
        server.answers["/v1/models"] = listed("small", "big")
        await here.until(lambda fleet: len(fleet.nodes[0].report.engines) == 2)
        server.answers["/v1/models"] = listed("big")
        await here.until(
            lambda fleet: [e.id for e in fleet.nodes[0].report.engines] == ["big"]
        )


async def test_an_engine_that_dies_behind_its_server_takes_it_out_and_is_back_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fake_server(VLLM) as server, polled(monkeypatch, server) as here:
        epoch = here.balancer.state.current.candidates[0].engine.epoch
        server.answers["/health"] = (503, b"")
        await here.until(lost)
        assert "/health answered 503" in why(here)
        server.answers["/health"] = b""
        await here.until(everyone_up)

        assert here.balancer.state.current.candidates[0].engine.epoch > epoch


async def test_a_server_without_the_models_named_says_which_it_has() -> None:
    async with fake_server(OPENAI) as server:
        known = ServerSetting(url=server.url, models=("large",))
        async with endpoint(server_tables=(known,), wait=False) as here:
            await here.until(lost)

            assert "has none of the `models` named; it has small" in why(here)
