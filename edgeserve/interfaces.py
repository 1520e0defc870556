"""The network addresses of this machine, now."""

from __future__ import annotations

import ipaddress
import socket

import psutil

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def addresses(*, loopback: bool = False) -> frozenset[str]:
    """Addresses of the interfaces that are up, IPv6 with its scope (`fe80::1%eth0`).

    With `loopback`, those of the loopback interface instead of all the others.
    """
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    found = (
        entry.address
        for name, entries in psutil.net_if_addrs().items()
        if name in up
        for entry in entries
        if entry.family in {socket.AF_INET, socket.AF_INET6}
    )
    return frozenset(
        address
        for address in found
        if ipaddress.ip_address(address).is_loopback == loopback
    )
