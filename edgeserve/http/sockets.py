"""Sockets: binds ports, detects dead peers, resets connections, counts descriptors."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import struct

from edgeserve.config.settings import EVERYWHERE
from edgeserve.errors import SettingsError

SILENT_SECONDS = 15
"""A connection whose peer's kernel is silent for so long is lost.

A machine that lost its power or its network closes no connection.
"""


def peer_of(transport: asyncio.BaseTransport) -> str:
    """Return the peer's address; an IPv4 one in its usual form."""
    name = transport.get_extra_info("peername")
    return str(name[0]).removeprefix("::ffff:") if name else ""


def cut(transport: asyncio.Transport) -> None:
    """Reset the connection, so that a broken answer does not look complete."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def notice_silence(transport: asyncio.Transport) -> None:
    """Have the kernel probe an idle connection, so that a dead peer is noticed."""
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
        option = getattr(socket, name, None)  # some systems lack some
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


BACKLOG = 512

UNKNOWN_NAME = frozenset((socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_FAIL))
"""The errno of `create_server` where a name cannot be resolved."""


def bind(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; `::` means every interface, IPv4 and IPv6.

    Raises SettingsError where the port is taken or no interface has the address.
    """
    everywhere = host == EVERYWHERE
    dual = everywhere and socket.has_dualstack_ipv6()
    v6 = dual or (":" in host and not everywhere)
    address = "" if everywhere else host
    try:
        return socket.create_server(
            (address, port),
            family=socket.AF_INET6 if v6 else socket.AF_INET,
            backlog=BACKLOG,
            dualstack_ipv6=dual,
        )
    except OSError as error:
        shown = f"[{host}]" if ":" in host else host
        raise SettingsError(
            f"cannot listen on {shown}:{port}: {_why(error)}"
        ) from error


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; choose another with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "no interface has that address"
    if error.errno in UNKNOWN_NAME:
        return "no interface has that name"
    if error.errno == errno.EACCES:
        return "ports under 1024 are the system's; choose another with --port"
    return os.strerror(error.errno) if error.errno else str(error)


MOST_FILES = 65536
"""Open files assumed where the system sets no limit, or a larger one."""

MOST_RESERVED = 512


def open_files() -> int:
    """Return how many files this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_FILES if soft == resource.RLIM_INFINITY else min(soft, MOST_FILES)


def most_connections(files: int) -> int:
    """Return how many clients may be connected, each with an upstream of its own.

    A reserve remains for listening sockets, files, pipes and our own requests.
    """
    return max(1, (files - min(files // 4, MOST_RESERVED)) // 2)


def is_shortage(error: OSError) -> bool:
    """Whether the cause is too many open files, here or in the whole system."""
    return error.errno in {errno.EMFILE, errno.ENFILE}
