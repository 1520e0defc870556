"""A real firewall on a host: nftables, spoken to directly, as `nft` may be missing."""

from __future__ import annotations

import os
import socket
import struct
from typing import Literal

from tests.fleet.network import Host

Way = Literal["in", "out"]

NETFILTER, SUBSYSTEM = 12, 10
BEGIN, END, NEW_TABLE, NEW_CHAIN = 0x10, 0x11, SUBSYSTEM << 8, SUBSYSTEM << 8 | 3
REQUEST, ACKNOWLEDGE, CREATE, NESTED = 0x1, 0x4, 0x400, 0x8000
HOOKS = {"in": 1, "out": 3}
DROP = 0


def _attribute(kind: int, content: bytes) -> bytes:
    head = struct.pack("=HH", 4 + len(content), kind)
    return head + content + bytes(-len(content) % 4)


def _message(kind: int, flags: int, family: int, resource: int, rest: bytes) -> bytes:
    body = struct.pack("=BB", family, 0) + struct.pack("!H", resource) + rest
    return struct.pack("=IHHII", 16 + len(body), kind, REQUEST | flags, 1, 0) + body


def drop_all(host: Host, way: Way) -> None:
    """Let no IPv4 packet in, or none out, as a strict `policy drop` does.

    Raises OSError where this kernel has no nftables.
    """
    hook = _attribute(1, struct.pack("!I", HOOKS[way]))
    hook += _attribute(2, struct.pack("!i", 0))
    chain = b"".join(
        (
            _attribute(1, b"doctor\0"),
            _attribute(3, b"all\0"),
            _attribute(4 | NESTED, hook),
            _attribute(5, struct.pack("!I", DROP)),
            _attribute(7, b"filter\0"),
        )
    )
    made, ipv4 = ACKNOWLEDGE | CREATE, int(socket.AF_INET)
    batch = b"".join(
        (
            _message(BEGIN, 0, 0, SUBSYSTEM, b""),
            _message(NEW_TABLE, made, ipv4, 0, _attribute(1, b"doctor\0")),
            _message(NEW_CHAIN, made, ipv4, 0, chain),
            _message(END, 0, 0, SUBSYSTEM, b""),
        )
    )
    with host.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER) as sock:
        sock.settimeout(5)
        sock.send(batch)
        for _ in (NEW_TABLE, NEW_CHAIN):
            (code,) = struct.unpack_from("=i", sock.recv(4096), 16)
            if code:
                raise OSError(-code, os.strerror(-code))
