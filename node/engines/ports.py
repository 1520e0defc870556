"""A port for an engine."""

from __future__ import annotations

import socket

from edgeserve.config import LOOPBACK


def free_port() -> int:
    """Return a port on loopback that is free at this moment."""
    with socket.create_server((LOOPBACK, 0)) as sock:
        port: int = sock.getsockname()[1]
        return port
