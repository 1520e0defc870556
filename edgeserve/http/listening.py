"""Listening addresses: the lines that tell people where a server can be reached."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import psutil
from msgspec import structs

from edgeserve.config.settings import EVERYWHERE, LOOPBACK
from edgeserve.http.types import Origin
from edgeserve.network import EVERY_IPV4, is_virtual
from edgeserve.security.tokens import is_loopback

if TYPE_CHECKING:
    from psutil._ntuples import snicaddr

SHOWN = 3
"""Most addresses that are shown; a machine may have dozens."""

NOWHERE = ("203.0.113.1", 9)
"""A documentation address, which only a default route leads to."""


def lines(at: Origin, who: str) -> str:
    """Return the lines a server prints once it listens; scripts read the first."""
    urls = [structs.replace(at, host=each).url for each in shown_at(at.host)]
    others = [f"and {url}" for url in urls[1:SHOWN]]
    if more := len(urls[SHOWN:]):
        others.append(f"and {more} more")
    return f"listening on {' '.join((urls[0], *others))}\n  for {who}"


def this_machine_only(why: str) -> str:
    """Say that only this machine has access, and why."""
    return f"this machine only: {why}"


ALONE = (
    "no fleet token yet; `edgeserve token new` makes one, to be copied to each machine"
)
ASKED_FOR = "`host` says so"


def shown_at(host: str) -> tuple[str, ...]:
    """Return the addresses to show to people, the most useful ones first."""
    if host not in {EVERYWHERE, EVERY_IPV4}:
        return (host,)
    return ranked(_by_interface(), _default_address()) or (LOOPBACK,)


def ranked(found: Mapping[str, Sequence[str]], default: str | None) -> tuple[str, ...]:
    """Sort addresses: the default route's first; containers' only if there is no other.

    IPv6 ones are left out where there are IPv4 ones: they are hard to type. Pure.
    """
    outside = [
        each
        for name, addresses in found.items()
        if not is_virtual(name) or default in addresses
        for each in addresses
    ]
    all_ = outside or [each for addresses in found.values() for each in addresses]
    usable = list(filter(_usable, all_))
    ipv4 = [each for each in usable if _is_ipv4(each)]
    return tuple(sorted(ipv4 or usable, key=lambda each: each != default))


def _usable(address: str) -> bool:
    plain = ipaddress.ip_address(address)
    return not (is_loopback(address) or (plain.version == 6 and plain.is_link_local))


def _is_ipv4(address: str) -> bool:
    return ipaddress.ip_address(address).version == 4


def _by_interface() -> Mapping[str, Sequence[str]]:
    try:
        stats, found = psutil.net_if_stats(), psutil.net_if_addrs()
    except OSError:  # too many open files
        return {}
    return {
        name: list(_addresses(entries))
        for name, entries in found.items()
        if name in stats and stats[name].isup
    }


def _addresses(entries: Iterable[snicaddr]) -> Iterable[str]:
    for entry in entries:
        if entry.family in {socket.AF_INET, socket.AF_INET6}:
            yield entry.address


def _default_address() -> str | None:
    """Return this machine's address on the default route. Sends nothing."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(NOWHERE)
            address: str = probe.getsockname()[0]
    except OSError:
        return None
    return address
