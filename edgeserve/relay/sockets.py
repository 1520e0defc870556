"""What we ask of the operating system about one connection."""

from __future__ import annotations

import asyncio
import socket
import struct

SILENT_SECONDS = 15
"""After so long without a sign from the other kernel a connection is lost.

A machine that lost its power or its Wi-Fi says no goodbye.
"""


def peer_of(transport: asyncio.BaseTransport) -> str:
    """Return the other side's address, an IPv4 one in its own form."""
    name = transport.get_extra_info("peername")
    return str(name[0]).removeprefix("::ffff:") if name else ""


def cut(transport: asyncio.Transport) -> None:
    """Reset the connection: a broken answer must not look like a whole one."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def notice_silence(transport: asyncio.Transport) -> None:
    """Have the kernel probe a connection on which nothing moves."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 5),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", SILENT_SECONDS * 1000),
    ):
        option = getattr(socket, name, None)  # not every system has each
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
