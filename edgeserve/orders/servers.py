"""Adopted servers: other programs on a node's machine, and the way to them. Pure.

Such a server may listen on its own machine only: balancers reach it through the node.
"""

from __future__ import annotations

import msgspec

SERVERS = "/edgeserve/v1/servers"
"""The node's relay: the port of a server follows, then a path there."""


class AdoptedServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that a node has found on its machine, and recognised.

    `kind` is what it is, `name` what balancers call it, behind the node's name and a
    slash. All else is as in the settings of a server, for those who set it.
    """

    port: int
    kind: str
    name: str
    width: int = 0
    context: int = 0
    models: tuple[str, ...] = ()
    abilities: tuple[str, ...] = ()
    last_resort: bool = False
