"""Which of a node's addresses to try first. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable

from edgeserve.interfaces import Address, Interface


def ordered(announced: Iterable[str], own: Collection[Interface]) -> tuple[str, ...]:
    """Sort addresses: loopback, IPv4 nearby, other IPv4, IPv6, IPv6 link-local.

    `own` are this machine's addresses. Equal ranks keep their order. What cannot be
    connected to is dropped.
    """
    usable = [each for each in map(_read, announced) if _usable(each)]
    ours = {each.ip for each in own}
    elsewhere = any(_plain(each) not in ours for each in usable)
    ranked = sorted(
        usable, key=lambda each: _rank(each, ours if elsewhere else (), own)
    )
    return tuple(str(each) for each in ranked)


def _read(text: str) -> Address:
    return ipaddress.ip_address(text)


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
