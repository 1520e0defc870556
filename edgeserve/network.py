"""Network interfaces: lists the addresses of this machine, and watches for changes."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import platform
import re
import socket
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from edgeserve.config.settings import EVERYWHERE, LOOPBACK
from edgeserve.errors import in_words
from edgeserve.runtime.log import warn_once

if TYPE_CHECKING:
    from psutil._ntuples import snicaddr

log = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

EVERY_IPV4 = "0.0.0.0"  # noqa: S104 - compared with, not bound to

POLL_SECONDS = 1.5
"""Between two polls. A poll costs under a millisecond, on a Pi too."""

_VIRTUAL = re.compile(
    r"docker|veth|virbr|vnet|cni|flannel|cali|cilium|lxc|lxd|podman|kube|nerdctl|dummy"
    r"|br-[0-9a-f]{12}$"
)

IF_INET6 = Path("/proc/net/if_inet6")
TENTATIVE, DAD_FAILED = 0x40, 0x08


def asked_at(host: str) -> str:
    """Return the address at which this machine itself reaches such a listener. Pure."""
    return LOOPBACK if host in {EVERYWHERE, EVERY_IPV4} else host


def interfaces(*, loopback: bool = False) -> frozenset[Interface]:
    """Return addresses with their networks, of the interfaces that are up.

    An IPv6 address counts once the kernel knows it to be unique. Link-local ones carry
    their scope (`fe80::1%eth0/64`). With `loopback`, those of the loopback
    interface instead of all the others. Where the system cannot list them, for want of
    files or memory, the last list is returned.
    """
    return frozenset(
        each
        for found in by_name().values()
        for each in found
        if each.ip.is_loopback == loopback
    )


def by_name() -> Mapping[str, tuple[Interface, ...]]:
    """Return the addresses of every interface that is up, loopback included."""
    global _latest
    try:
        _latest = _listed()
    except OSError as error:
        warn_once(log, f"cannot list network addresses: {in_words(error)}")
    return _latest


_latest: Mapping[str, tuple[Interface, ...]] = {}


def _listed() -> Mapping[str, tuple[Interface, ...]]:
    stats, not_yet = psutil.net_if_stats(), _tentative()
    return {
        name: tuple(
            each
            for each in map(_interface, entries)
            if each is not None and each.ip not in not_yet
        )
        for name, entries in psutil.net_if_addrs().items()
        if name in stats and stats[name].isup
    }


def addresses(*, loopback: bool = False) -> frozenset[str]:
    """Return the addresses alone; see `interfaces`."""
    return frozenset(
        str(each).partition("/")[0] for each in interfaces(loopback=loopback)
    )


def is_own(address: str) -> bool:
    """Whether an address is one of this machine's."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    found = (each.ip for each in interfaces())
    return ip.is_loopback or str(ip) in {str(e).partition("%")[0] for e in found}


MAGIC_PORT = 9
"""The port of magic packets. Cards look for the bytes, whatever the port."""


def magic_packet(mac: str) -> bytes:
    """Return the bytes that wake the card of that address. Pure."""
    return b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) * 16


def send_magic_packet(mac: str, broadcast: str) -> None:
    """Send a magic packet to a network. Raises OSError, or ValueError for no address.

    A directed broadcast, because a packet to 255.255.255.255 leaves by one interface
    only, and nothing answers for the address of a machine that sleeps.
    """
    target = str(ipaddress.IPv4Address(broadcast))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(magic_packet(mac), (target, MAGIC_PORT))


def own_names() -> frozenset[str]:
    """Return the names of this machine, in lower case, with those in mDNS."""
    name = platform.node().lower().rstrip(".")
    short = name.partition(".")[0]
    names = {"localhost", name, short, f"{short}.local"} if short else {"localhost"}
    return frozenset(names)


def is_virtual(name: str) -> bool:
    """Whether only containers or virtual machines are behind this interface."""
    return _VIRTUAL.match(name) is not None


async def changes(
    before: frozenset[str], every: float = POLL_SECONDS
) -> AsyncGenerator[frozenset[str]]:
    """Yield the addresses, without loopback, each time they differ from `before`.

    Never ends. It polls: the kernel's notices need a netlink socket, which macOS and
    some containers lack.
    """
    while True:
        await asyncio.sleep(every)
        now = addresses()
        if now != before:
            before = now
            yield now


def _interface(entry: snicaddr) -> Interface | None:
    """Convert psutil's entry; it has IPv6 masks as addresses, scopes in the address."""
    if entry.family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    address, netmask = entry.address, entry.netmask
    plain, _, scope = address.partition("%")
    try:
        if ":" not in plain:
            return ipaddress.ip_interface(f"{plain}/{netmask or 32}")
        mask = int(ipaddress.IPv6Address(netmask)) if netmask else 2**128 - 1
        scoped = f"{plain}%{scope}" if scope else plain
        return ipaddress.ip_interface(f"{scoped}/{mask.bit_count()}")
    except ValueError as error:
        warn_once(log, f"cannot use the network address {address!r}: {error}")
        return None


def _tentative() -> frozenset[Address]:
    """Return IPv6 addresses that cannot be bound yet; psutil lists them too."""
    try:
        rows = [line.split() for line in IF_INET6.read_text().splitlines()]
        return frozenset(
            ipaddress.IPv6Address(int(row[0], 16))
            for row in rows
            if int(row[4], 16) & (TENTATIVE | DAD_FAILED)
        )
    except (OSError, ValueError, IndexError):
        return frozenset()
