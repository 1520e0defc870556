"""What a machine does that does not belong to the fleet, and what it gets by that."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from zeroconf import ServiceInfo
from zeroconf._protocol.outgoing import DNSOutgoing

from edgeserve.security.certificates import (
    SERVER_NAME,
    Certificate,
    fleet_context,
    peer_fingerprint,
    server_context,
)
from edgeserve.wire import PROTOCOL, SERVICE
from tests.fleet.fleet import SECONDS
from tests.fleet.network import Host

MDNS = ("224.0.0.251", 5353)
TTL = 120
AUTHORITATIVE_ANSWER = 0x8400
BYTES = 65536

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter, "Haul"], Awaitable[None]]


@dataclass
class Haul:
    """What a stranger has got: how many connections, and every byte that came in."""

    connections: int = 0
    data: bytearray = field(default_factory=bytearray)

    def count(self, *secrets: str) -> int:
        """Count how often the secrets are in it."""
        return sum(self.data.count(each.encode()) for each in secrets)


def announce(
    host: Host, name: str, id_: str, address: str, port: int, ttl: int = TTL
) -> None:
    """Announce a node by mDNS from a host; a `ttl` of 0 withdraws the announcement."""
    info = ServiceInfo(
        SERVICE,
        f"{name} {id_[:8]}.{SERVICE}",
        port=port,
        server=f"edgeserve-{id_[:12]}.local.",
        parsed_addresses=[address],
        properties={
            "id": id_,
            "instance": "0" * 16,
            "name": name,
            "protocol": str(PROTOCOL),
        },
        host_ttl=ttl,
        other_ttl=ttl,
    )
    out = DNSOutgoing(AUTHORITATIVE_ANSWER)
    records = info.dns_pointer(), info.dns_service(), info.dns_text()
    for record in (*records, *info.dns_addresses()):
        out.add_answer_at_time(record, 0)
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM, 0) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(host.address)
        )
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        sock.bind((host.address, MDNS[1]))
        for packet in out.packets():
            sock.sendto(packet, MDNS)


@asynccontextmanager
async def serving(
    host: Host, play: Play, certificate: Certificate | None = None
) -> AsyncGenerator[tuple[int, Haul]]:
    """Listen on a host, with TLS where there is a certificate; yields port and haul."""
    haul, running = Haul(), set[asyncio.Task[None] | None]()

    async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        haul.connections += 1
        plain, task = writer.transport, asyncio.current_task()
        running.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                if context:
                    await writer.start_tls(context)
                await play(reader, writer, haul)
                writer.close()
                await writer.wait_closed()
        finally:
            plain.abort()
            running.discard(task)

    sock = host.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    sock.bind((host.address, 0))
    context = server_context(certificate) if certificate else None
    server = await asyncio.start_server(taken, sock=sock)
    try:
        yield sock.getsockname()[1], haul
    finally:
        server.close()
        for task in tuple(running):
            if task:
                task.cancel()
        while running:
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # transports close in the next round


async def listens(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, haul: Haul
) -> None:
    """Say nothing; take what comes."""
    del writer
    while data := await reader.read(BYTES):
        haul.data += data


def says(*answers: bytes) -> Play:
    """Give one answer after another, each after something has come; then listen."""

    async def play(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, haul: Haul
    ) -> None:
        for answer in answers:
            haul.data += await reader.read(BYTES)
            writer.write(answer)
        await listens(reader, writer, haul)

    return play


async def connected(host: Host, address: str, port: int) -> socket.socket:
    """Open a TCP connection from a host."""
    sock = host.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (address, port))
    return sock


@asynccontextmanager
async def opened(
    host: Host, address: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Stream]:
    """Connect from a host, with TLS if there is a context."""
    sock = await connected(host, address, port)
    name = SERVER_NAME if tls else None
    reader, writer = await asyncio.open_connection(
        sock=sock, ssl=tls, server_hostname=name
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def said_to(
    host: Host,
    address: str,
    port: int,
    sent: Iterable[bytes],
    tls: ssl.SSLContext | None = None,
) -> bytes:
    """Send all of it, and return what comes until the other side closes."""
    got = b""
    with suppress(ConnectionError, ssl.SSLError):
        async with (
            asyncio.timeout(SECONDS),
            opened(host, address, port, tls) as (
                reader,
                writer,
            ),
        ):
            for piece in sent:
                writer.write(piece)
                await writer.drain()
            while data := await reader.read(BYTES):
                got += data
    return got


def fingerprint_at(writer: asyncio.StreamWriter) -> str:
    """Return the fingerprint of the certificate that the other side has shown."""
    session: ssl.SSLObject = writer.get_extra_info("ssl_object")
    return peer_fingerprint(session)


ANY_CERTIFICATE = fleet_context()
"""TLS 1.3 that takes every certificate, as strangers and balancers do."""
