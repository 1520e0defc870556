"""What crosses the network between balancer and node tells nothing to a listener."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.fleet.asking import Client, ready
from tests.fleet.fleet import TOKEN, answer, fleet
from tests.fleet.network import Host
from tests.security.asking import CHAT, PROMPT, chat

ETH_P_ALL = 3
KEY = "key-of-the-client-of-the-tests"
ANSWER = '"content":" w7"'
RECORD = b"\x17\x03\x03"
"""How a TLS record of data begins."""


@asynccontextmanager
async def captured(host: Host) -> AsyncGenerator[bytearray]:
    """Capture all packets of a host for the length of the block."""
    sock = host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**23)
    sock.setblocking(False)
    sock.bind(("eth0", ETH_P_ALL))
    data, loop = bytearray(), asyncio.get_running_loop()
    loop.add_reader(sock, lambda: data.extend(sock.recv(65536)))
    try:
        yield data
    finally:
        loop.remove_reader(sock)
        sock.close()


async def test_0_tokens_keys_prompts_and_answers_cross_between_the_two(
    tmp_path: Path, engine_flags: list[str]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    with fleet(tmp_path / "fleet") as made:
        attic, middle = (made.network.host(each) for each in ("attic", "balancer"))
        async with captured(attic) as fleets, captured(made.client) as clients:
            url = f"http://{middle.address}:8080"
            balancer = ("balancer", "start", "--port", "8080")
            made.start(middle, *balancer, "--api-key-file", str(keys))
            # It registers as well, so that this is captured, too.
            made.node(attic, "--name", "attic", "--balancer", url, *engine_flags)
            async with made.asking(url) as session:
                session.headers["Authorization"] = f"Bearer {KEY}"

                def serves(nodes: dict[str, dict[str, object]]) -> bool:
                    return "attic" in nodes and ready(nodes["attic"])

                await answer(Client(session).nodes, serves, "attic serves")
                body = chat(20, stream=True)
                async with session.post(CHAT, json=body) as streamed:
                    text = await streamed.text()
            await asyncio.sleep(0.2)  # the last packets

    assert ANSWER in text
    secrets = [each.encode() for each in (KEY, PROMPT, ANSWER)]
    assert [clients.count(each) > 0 for each in secrets] == [True] * 3  # the control
    assert [fleets.count(each) for each in (*secrets, TOKEN.encode())] == [0] * 4
    assert clients.count(TOKEN.encode()) == 0
    assert fleets.count(RECORD) > 20
    assert fleets.count(b"/edgeserve/v1/register") > 0  # plain, and with a proof
