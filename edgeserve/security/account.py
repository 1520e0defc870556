"""Account of a connection: whether a program of this machine's same account asks.

Loopback is open to all accounts of a machine; Linux says which one a local connection
belongs to.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from edgeserve.security.tokens import is_loopback

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LOCAL, REMOTE, ACCOUNT = 1, 2, 7
"""Columns of these tables."""

ESTABLISHED = 3
"""The column of the state, whose value is `01` while the connection is open."""

Address = tuple[str, int]


def same_account(
    peer: Address, own: Address, tables: tuple[Path, ...] = TABLES
) -> bool:
    """Whether the other end of a loopback connection has the account of this process.

    False where that cannot be known: on another system, or from another machine.
    """
    if not (is_loopback(peer[0]) and is_loopback(own[0])):
        return False
    wanted = _written(peer), _written(own)
    accounts = {
        int(row[ACCOUNT])
        for row in _rows(tables)
        if (row[LOCAL], row[REMOTE]) in zip(*wanted, strict=True)
        and row[ESTABLISHED] == "01"
    }
    return accounts == {os.getuid()}


def _rows(tables: tuple[Path, ...]) -> Iterator[list[str]]:
    for table in tables:
        try:
            lines = table.read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines[1:]:
            row = line.split()
            if len(row) > ACCOUNT and row[ACCOUNT].isdecimal():
                yield row


def _written(at: Address) -> tuple[str, str]:
    """Return an address as the kernel writes it: of IPv4, and mapped into IPv6. Pure.

    Each 32-bit word is in the order of the machine's bytes.
    """
    found = ip_address(at[0].partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    port = f"{at[1]:04X}"
    if isinstance(found, IPv6Address):
        return (text := f"{_words(found.packed)}:{port}"), text
    mapped = IPv6Address(f"::ffff:{found}")
    return f"{_words(found.packed)}:{port}", f"{_words(mapped.packed)}:{port}"


def _words(packed: bytes) -> str:
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(each, sys.byteorder):08X}" for each in words)
