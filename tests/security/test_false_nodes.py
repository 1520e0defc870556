"""A machine that says that it is a node gets no prompt, no report and no token."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack, suppress

import pytest

from edgeserve.security.certificates import certificate_in, new_certificate
from edgeserve.security.proof import (
    HELLO,
    ID,
    KNOWN,
    MAC,
    MAGIC,
    NONCE,
    REFUSAL,
    REPLY,
    fleet_key,
)
from edgeserve.wire import encode
from tests.fakes.reports import a_report, an_engine
from tests.fleet.fleet import TOKEN, answer, until
from tests.security.asking import PROMPT, User, a_user
from tests.security.conftest import Town
from tests.security.stranger import (
    ANY_CERTIFICATE,
    BYTES,
    Haul,
    Play,
    announce,
    fingerprint_at,
    listens,
    opened,
    says,
    serving,
)

REPORT = encode(a_report(an_engine("small:F16", slots=8), name="attic"))
FORGED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    b"event: report\ndata: %s\n\n" % REPORT
)


async def reflects(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, haul: Haul
) -> None:
    """Send everything back, the proof included."""
    while data := await reader.read(BYTES):
        haul.data += data
        writer.write(data)


async def guesses(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, haul: Haul
) -> None:
    """Reply as a node does that knows the client's token, with a proof made up."""
    hello = await reader.readexactly(HELLO)
    haul.data += hello
    id_ = hello[len(MAGIC) + NONCE :][:ID]
    writer.write(KNOWN + secrets.token_bytes(NONCE) + id_ + secrets.token_bytes(MAC))
    writer.write(FORGED)
    await listens(reader, writer, haul)


PLAYS: dict[str, Play] = {
    "is silent": listens,
    "refuses, then reports": says(REFUSAL + FORGED, FORGED),
    "reports at once": says(FORGED, FORGED),
    "reflects": reflects,
    "makes a proof up": guesses,
}


async def tried(user: User, address: str, port: int) -> None:
    """Wait until the balancer has tried to use an address."""

    async def problem() -> list[str]:
        url = f"{address}:{port}"
        found = [each for each in await user.members() if url in each["url"]]
        return [str(each["problem"]) for each in found if each["problem"]]

    await answer(problem, bool, "the balancer has tried it")


async def test_nodes_with_an_id_of_their_own_get_0_of_4_prompts(town: Town) -> None:
    host = town.stranger
    async with a_user(town) as user, AsyncExitStack() as stack:
        hauls = list[Haul]()
        for number, play in enumerate(PLAYS.values()):
            own = new_certificate("false")
            serves = serving(host, play, own)
            port, haul = await stack.enter_async_context(serves)
            announce(host, f"false{number}", own.id, host.address, port)
            hauls.append(haul)
            await tried(user, host.address, port)
            stack.callback(
                announce, host, f"false{number}", own.id, host.address, port, ttl=0
            )
        right = await user.prompts(4)
        reporting = [each for each in await user.members() if each["report"]]

    assert right == 4
    assert [each["name"] for each in reporting] == ["attic"]
    assert all(haul.connections for haul in hauls)
    assert sum(haul.count(PROMPT, TOKEN, "GET", "HTTP") for haul in hauls) == 0
    assert all(len(haul.data) <= haul.connections * HELLO for haul in hauls)


@pytest.mark.parametrize("others", ["its own certificate", "no certificate at all"])
async def test_a_stolen_id_gets_0_prompts_and_the_real_node_stays(
    town: Town, others: str
) -> None:
    host = town.stranger
    certificate = new_certificate("false") if others.startswith("its") else None
    async with (
        a_user(town) as user,
        serving(host, says(FORGED, FORGED), certificate) as (port, haul),
    ):
        id_ = town.node_id
        for name in ("attic", "another"):  # the very instance, and one beside it
            announce(host, name, id_, host.address, port)
        await until(lambda: haul.connections > 0, "the balancer has tried it")
        right = await user.prompts(4)
        (member,) = [each for each in await user.members() if each["report"]]
        for name in ("attic", "another"):
            announce(host, name, id_, host.address, port, ttl=0)

    assert (right, member["state"]) == (4, "up")
    assert haul.count(PROMPT, TOKEN, "GET", "HTTP") == 0
    if certificate:
        assert len(haul.data) == 0  # not even the beginning of a proof


async def test_an_announcement_in_the_nodes_name_does_not_part_it_from_the_balancer(
    town: Town,
) -> None:
    host = town.stranger
    async with a_user(town) as user, serving(host, listens) as (port, haul):
        log = len(town.balancer.log)
        # Its service, its name; only the address, and then the id, are others.
        announce(host, "attic", town.node_id, host.address, port)
        announce(host, "attic", town.node_id[:8] + "0" * 24, host.address, port)
        rights = list[int]()
        for _ in range(10):
            rights.append(await user.prompts(1))
            await asyncio.sleep(0.2)
        said = town.balancer.log[log:]
        announce(host, "attic", town.node_id, host.address, port, ttl=0)

    assert rights == [1] * 10
    assert haul.count(PROMPT, TOKEN, "GET") == 0
    assert "attic" not in said


async def test_a_stolen_id_gets_0_prompts_after_the_node_has_gone(
    own_town: Town,
) -> None:
    town, host = own_town, own_town.stranger
    certificate = new_certificate("false")
    async with (
        a_user(town) as user,
        serving(host, says(FORGED, FORGED), certificate) as (port, haul),
    ):
        id_ = town.node_id
        town.node.kill()
        announce(host, "attic", id_, host.address, port)
        await until(lambda: haul.connections > 1, "the balancer has tried it")
        meanwhile = await user.prompts(4)
        await until(lambda: haul.connections > 4, "it has tried it again")
        town.node.start()
        await user.ask.serving("attic")
        right = await user.prompts(4)

    assert (meanwhile, right) == (0, 4)
    assert haul.count(PROMPT, TOKEN, "GET", "HTTP") == 0
    assert len(haul.data) == 0


async def test_a_relay_between_the_two_gets_0_prompts(town: Town) -> None:
    host, node = town.stranger, town.node.host

    async def relays(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, haul: Haul
    ) -> None:
        async with opened(host, node.address, 8090, ANY_CERTIFICATE) as (there, out):

            async def passes(
                source: asyncio.StreamReader, to: asyncio.StreamWriter
            ) -> None:
                with suppress(OSError):
                    while data := await source.read(BYTES):
                        haul.data += data
                        to.write(data)
                to.close()

            await asyncio.gather(passes(reader, out), passes(there, writer))

    own = new_certificate("relay")
    async with a_user(town) as user, serving(host, relays, own) as (port, haul):
        announce(host, "relay", own.id, host.address, port)
        await tried(user, host.address, port)
        announce(host, "relay", own.id, host.address, port, ttl=0)
        right = await user.prompts(4)
        problems = await user.problems()

    assert right == 4
    assert haul.data[:8] == MAGIC  # the proof was passed on, and was of no use
    assert haul.count(PROMPT, TOKEN, "GET", "HTTP", "attic") == 0
    assert any("does not prove that it holds the fleet token" in p for p in problems)


async def test_a_stolen_certificate_without_the_token_gets_0_prompts(
    town: Town,
) -> None:
    host, node = town.stranger, town.node.host
    hello = MAGIC + secrets.token_bytes(NONCE) + fleet_key(TOKEN).id + bytes(3 * ID)
    async with a_user(town) as user, AsyncExitStack() as stack:
        id_, pem = town.identity
        stolen = certificate_in(pem)
        async with opened(host, node.address, 8090, ANY_CERTIFICATE) as (
            reader,
            writer,
        ):
            assert fingerprint_at(writer) == stolen.fingerprint
            writer.write(hello)
            recorded = await reader.readexactly(REPLY)
        serves = serving(host, says(recorded, FORGED), stolen)
        port, haul = await stack.enter_async_context(serves)
        announce(host, "twin", id_, host.address, port)
        await tried(user, host.address, port)
        announce(host, "twin", id_, host.address, port, ttl=0)
        right = await user.prompts(4)

    assert right == 4
    assert len(haul.data) == haul.connections * HELLO
    assert haul.count(PROMPT, TOKEN, "GET", "HTTP") == 0
