"""The network addresses of this machine, now, and word when they change."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import psutil

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

POLL_SECONDS = 1.5
"""Between two looks. A look costs under a millisecond, on a Pi too."""

IF_INET6 = Path("/proc/net/if_inet6")
TENTATIVE, DAD_FAILED = 0x40, 0x08


def interfaces(*, loopback: bool = False) -> frozenset[Interface]:
    """Addresses with their networks, of the interfaces that are up.

    An IPv6 address counts once the kernel knows that nobody else has it. Link-local
    ones carry their scope (`fe80::1%eth0/64`). With `loopback`, those of the loopback
    interface instead of all the others.
    """
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    found = (
        _interface(entry.address, entry.netmask)
        for name, entries in psutil.net_if_addrs().items()
        if name in up
        for entry in entries
        if entry.family in {socket.AF_INET, socket.AF_INET6}
    )
    not_yet = _tentative()
    return frozenset(
        each
        for each in found
        if each.ip.is_loopback == loopback and each.ip not in not_yet
    )


def addresses(*, loopback: bool = False) -> frozenset[str]:
    """The addresses alone; see `interfaces`."""
    return frozenset(
        str(each).partition("/")[0] for each in interfaces(loopback=loopback)
    )


async def changes(
    before: frozenset[str], every: float = POLL_SECONDS
) -> AsyncGenerator[frozenset[str]]:
    """Yield the addresses, without loopback, each time they differ from `before`.

    Never ends. Polled: the kernel's own notices need a netlink socket, which neither
    macOS nor every container has.
    """
    while True:
        await asyncio.sleep(every)
        now = addresses()
        if now != before:
            before = now
            yield now


def _interface(address: str, netmask: str | None) -> Interface:
    """Read what psutil says; IPv6 masks come as addresses, scopes with the address."""
    plain, _, scope = address.partition("%")
    if ":" not in plain:
        return ipaddress.ip_interface(f"{plain}/{netmask or 32}")
    mask = int(ipaddress.IPv6Address(netmask)) if netmask else 2**128 - 1
    scoped = f"{plain}%{scope}" if scope else plain
    return ipaddress.ip_interface(f"{scoped}/{mask.bit_count()}")


def _tentative() -> frozenset[Address]:
    """IPv6 addresses that cannot be bound yet; psutil lists them all the same."""
    try:
        rows = [line.split() for line in IF_INET6.read_text().splitlines()]
    except OSError:
        return frozenset()
    return frozenset(
        ipaddress.IPv6Address(int(row[0], 16))
        for row in rows
        if int(row[4], 16) & (TENTATIVE | DAD_FAILED)
    )
