"""Bind a port, or say in one sentence why not."""

from __future__ import annotations

import errno
import socket

from edgeserve.config import EVERYWHERE
from edgeserve.errors import SettingsError

BACKLOG = 512


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
    if isinstance(error, socket.gaierror):
        return "no interface has that name"
    return error.strerror or str(error)
