"""Hints: where nodes may be, by any source.

The follower tries the addresses of a discovered node, and a node that answers stays
when its announcement goes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from edgeserve.http.types import Origin
from edgeserve.network import Address, Interface

Source = Literal["mdns", "dns", "static", "registered"]


@dataclass(frozen=True)
class Discovered:
    """A node was discovered, again, or at another address.

    `key` names the source: the mDNS instance, the URL, or the name in DNS with what is
    behind it. A later event with the same key replaces the earlier one. `origins` are
    tried in order. `id`: the node's own id, where the announcement has it.
    """

    key: str
    origins: tuple[Origin, ...]
    id: str | None
    source: Source


@dataclass(frozen=True)
class Withdrawn:
    """The node discovered as `key` has withdrawn, or its announcement has expired."""

    key: str


OnEvent = Callable[[Discovered | Withdrawn], None]


def ordered(announced: Iterable[str], own: Collection[Interface]) -> tuple[str, ...]:
    """Sort addresses: loopback, IPv4 nearby, other IPv4, IPv6, IPv6 link-local.

    `own`: this machine's addresses. Equal ranks keep their order. Addresses that cannot
    be connected to are dropped.
    """
    usable = [each for each in map(ipaddress.ip_address, announced) if _usable(each)]
    own_ips = {each.ip for each in own}
    elsewhere = any(_plain(each) not in own_ips for each in usable)
    ranked = sorted(
        usable, key=lambda each: _rank(each, own_ips if elsewhere else (), own)
    )
    return tuple(str(each) for each in ranked)


def _usable(address: Address) -> bool:
    if address.is_unspecified or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.is_link_local:
        return address.scope_id is not None
    return True


def _plain(address: Address) -> Address:
    return ipaddress.ip_address(str(address).partition("%")[0])


def _rank(
    address: Address, ours: Collection[Address], own: Collection[Interface]
) -> int:
    # Docker gives every machine the same bridge address: a node elsewhere that
    # announces one of ours means its own bridge, and we would reach ourselves.
    if _plain(address) in ours:
        return 9
    if address.is_loopback:
        return 0
    if isinstance(address, ipaddress.IPv4Address):
        return 1 if any(address in each.network for each in own) else 2
    return 4 if address.is_link_local else 3
