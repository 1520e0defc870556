"""A fake DNS server: real messages over UDP and TCP, and names that tests change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from dns import flags, message, rcode, rrset

LONGEST_UDP = 512


@dataclass
class FakeNames:
    """What it knows. `failing` answers SERVFAIL, `silent` nothing at all.

    `broken`: names that are answered SERVFAIL.
    """

    ttl: int = 5
    failing: bool = False
    silent: bool = False
    broken: set[str] = field(default_factory=set[str])
    beside: bool = True
    hosts: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    services: dict[str, list[tuple[str, int]]] = field(
        default_factory=dict[str, list[tuple[str, int]]]
    )
    asked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    over_tcp: int = 0
    port: int = 0

    def answer(self, data: bytes) -> bytes:
        """Answer one message as a name server does."""
        question = message.from_wire(data)
        asked = question.question[0]
        name, kind = asked.name.to_text(omit_final_dot=True), asked.rdtype.name
        self.asked.append((name, kind))
        reply = message.make_response(question, recursion_available=True)
        if self.failing or name in self.broken:
            reply.set_rcode(rcode.SERVFAIL)
        elif kind == "SRV" and name in self.services:
            targets = self.services[name]
            records = [f"0 0 {port} {target}." for target, port in targets]
            reply.answer = self._set(name, kind, records)
            for target, _ in targets if self.beside else ():
                reply.additional += self._addresses(target, "A")
        elif name in self.hosts:
            reply.answer = self._addresses(name, kind)
        else:
            reply.set_rcode(rcode.NXDOMAIN)
        return reply.to_wire()

    def _addresses(self, name: str, kind: str) -> list[rrset.RRset]:
        here = self.hosts.get(name, [])
        found = [each for each in here if (":" in each) == (kind == "AAAA")]
        return self._set(name, kind, found)

    def _set(self, name: str, kind: str, records: list[str]) -> list[rrset.RRset]:
        if not records:
            return []
        return [rrset.from_text_list(f"{name}.", self.ttl, "IN", kind, records)]

    async def over_stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer one message over TCP."""
        self.over_tcp += 1
        length = int.from_bytes(await reader.readexactly(2))
        packed = self.answer(await reader.readexactly(length))
        writer.write(len(packed).to_bytes(2) + packed)
        await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, names: FakeNames) -> None:
        self._names = names

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._names.answer(data)
        if self._names.silent:
            return
        if len(reply) > LONGEST_UDP:
            short = message.make_response(message.from_wire(data))
            short.flags |= flags.TC
            reply = short.to_wire()
        self._transport.sendto(reply, addr)


@asynccontextmanager
async def fake_names(
    host: str = "127.0.0.1", port: int = 0
) -> AsyncGenerator[FakeNames]:
    """Run a DNS server for the length of the block."""
    names = FakeNames()
    server = await asyncio.start_server(names.over_stream, host, port)
    names.port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Datagrams(names), local_addr=(host, names.port)
    )
    try:
        yield names
    finally:
        transport.close()
        server.close()
        await server.wait_closed()
