"""Peers: how one node reaches another, as far as a balancer knows. Pure."""

from __future__ import annotations

from balancer.fleet.members import Fleet, Node
from edgeserve.orders.pulls import Peer
from edgeserve.security.tokens import is_loopback


def id_of(node: Node) -> str:
    """Return the id by which other nodes know a node."""
    return node.origin.id or node.id


def peer_of(fleet: Fleet, node: Node) -> Peer:
    """Name a node as another one reaches it; on loopback that would find itself."""
    origins = [node.origin]
    for key in node.addresses:
        origins += fleet.addresses[key].origins
    outside = [each for each in origins if not is_loopback(each.host)]
    urls = dict.fromkeys(each.url for each in outside or origins)
    return Peer(id=id_of(node), name=node.name, urls=tuple(urls))
