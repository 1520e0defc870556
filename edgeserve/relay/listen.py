"""Bind a port, or say in one sentence why not."""

from __future__ import annotations

import errno
import os
import socket

from edgeserve.config import EVERYWHERE
from edgeserve.errors import SettingsError

BACKLOG = 512

UNKNOWN_NAME = frozenset((socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_FAIL))
"""What `create_server` calls errno where a name cannot be looked up."""


def bound(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; `::` means every interface, IPv4 and IPv6.

    Raises SettingsError where the port is taken or the address is not ours.
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
        raise SettingsError(f"cannot listen on {host}:{port}: {_why(error)}") from error


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
