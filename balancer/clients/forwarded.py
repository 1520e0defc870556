"""Forwarded address: the client behind a reverse proxy. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_address

FIELD = "x-forwarded-for"


def trusted(proxies: Iterable[str]) -> frozenset[str]:
    """Return the addresses of proxies as connections have them: IPv6 ones are short."""
    return frozenset(str(ip_address(each)) for each in proxies)


def client_address(
    peer: str, headers: Mapping[str, str], proxies: Collection[str]
) -> str:
    """Return the client's address; that of the connection, unless a proxy is there.

    Each proxy adds the address that it saw. What stands before the first one that is
    no proxy of ours, read from the end, was written by the client.
    """
    if peer not in proxies:
        return peer
    for seen in reversed(headers.get(FIELD, "").split(",")):
        address = seen.strip().removeprefix("::ffff:")
        if not address:
            return peer
        if address not in proxies:
            return address
        peer = address
    return peer
