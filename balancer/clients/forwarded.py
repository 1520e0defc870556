"""Forwarded address: the client behind a reverse proxy. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import IPv6Address, ip_address

FIELD = "x-forwarded-for"


def client_address(
    peer: str, headers: Mapping[str, str], proxies: Collection[str]
) -> str:
    """Return the client's address; that of the connection, unless a proxy is there.

    Each proxy adds the address that it saw. What stands before the first one that is
    no proxy of ours, read from the end, was written by the client. `proxies` are as
    `plain` writes them.
    """
    if plain(peer) not in proxies:
        return peer
    for seen in reversed(headers.get(FIELD, "").split(",")):
        address = plain(_without_port(seen.strip()))
        if not address:
            return peer
        if address not in proxies:
            return address
        peer = address
    return peer


def plain(address: str) -> str:
    """Write an address the one way that its spellings share; "" if it is none."""
    try:
        ip = ip_address(address)
    except ValueError:
        return ""
    return str((ip.ipv4_mapped if isinstance(ip, IPv6Address) else None) or ip)


def _without_port(address: str) -> str:
    # Some proxies add the client's port, with which each connection is another client.
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
