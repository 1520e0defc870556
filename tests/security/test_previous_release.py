"""A fleet of the previous release is told what to do; nothing works by half."""

from __future__ import annotations

import asyncio

import aiohttp

from tests.fleet.fleet import TOKEN, answer
from tests.security.asking import PROMPT, a_user
from tests.security.conftest import Town
from tests.security.stranger import Haul, announce, said_to, serving

OLD_ID = "0123456789abcdef0123456789abcdef"
REFUSED = (
    b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
)
DO = "install the same edgeserve on both"


async def old_node(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, haul: Haul
) -> None:
    """Answer as a node did that speaks plain HTTP and wants a bearer token."""
    haul.data += await reader.read(65536)
    if haul.data.startswith(b"GET "):
        writer.write(REFUSED)
    else:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
    await writer.drain()


async def test_a_node_of_the_previous_release_gets_0_prompts_and_0_tokens(
    town: Town,
) -> None:
    host = town.stranger
    async with a_user(town) as user, serving(host, old_node) as (port, haul):
        announce(host, "old", OLD_ID, host.address, port)

        async def told() -> bool:
            return any(DO in each for each in await user.problems())

        await answer(told, bool, "the balancer says what to do")
        right = await user.prompts(4)
        announce(host, "old", OLD_ID, host.address, port, ttl=0)

    assert right == 4
    assert haul.count(TOKEN, PROMPT, "GET", "Bearer") == 0


async def test_a_balancer_of_the_previous_release_is_told_what_to_do(
    town: Town,
) -> None:
    asked = (
        f"GET /edgeserve/v1/events HTTP/1.1\r\nhost: a\r\n"
        f"authorization: Bearer {TOKEN}\r\n\r\n"
    )
    async with a_user(town):
        host = town.node.host.address
        got = await said_to(town.stranger, host, 8090, [asked.encode()])

    assert got.split()[1] in {b"400", b"401"}
    assert b"install the same edgeserve on both" in got
    assert b"attic" not in got


async def test_a_node_of_the_previous_release_that_registers_is_told_what_to_do(
    town: Town,
) -> None:
    url = f"http://{town.stranger.address}:8090"
    async with a_user(town) as user:
        try:
            async with user.session.post(
                "/edgeserve/v1/register", json={"url": url, "id": OLD_ID}
            ) as got:
                status, said = got.status, await got.text()
        except aiohttp.ClientError as error:
            raise AssertionError(error) from error
        listed = [each["url"] for each in await user.members()]

    assert status == 401
    assert "same edgeserve" in said
    assert not any(url in each for each in listed)
