"""Adopted servers: follow which servers nodes report, and ask them through the node.

Such a server listens on its own machine only. So its address is the node's relay, with
the connection on which the node has proved that it belongs to the fleet. In all else it
is a server as those that are named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

from balancer.fleet.current import LiveFleet
from balancer.fleet.members import Fleet, Node
from balancer.servers.registry import ServerRegistry
from balancer.servers.server import Server
from edgeserve.config.servers import ABILITIES, KINDS, ServerKind, ServerSetting
from edgeserve.http.types import Origin, Upstream
from edgeserve.network import addresses
from edgeserve.orders.servers import SERVERS, AdoptedServer
from edgeserve.runtime.background import declared, guarded
from edgeserve.security.tokens import is_loopback

MOST = 32
"""Servers of one node."""

_KINDS: dict[str, ServerKind] = {each: each for each in KINDS}

FOLLOW = declared("adopted servers", "timer")


@contextmanager
def adopting(
    current: LiveFleet, registry: ServerRegistry, upstream: Upstream
) -> Generator[None]:
    """Poll what nodes adopt; `upstream` has the connections to nodes."""
    following = _Following(current, registry, upstream)
    current.listen(following.notice)
    try:
        yield
    finally:
        following.closed = True


class _Following:
    """Compares what nodes report with what is polled."""

    def __init__(
        self, current: LiveFleet, registry: ServerRegistry, upstream: Upstream
    ) -> None:
        self.closed = False
        self._current = current
        self._registry = registry
        self._upstream = upstream
        self._seen: list[Any] = []
        self._due = False
        self._polled: dict[str, Server] = {}
        self._loop = asyncio.get_running_loop()

    def notice(self) -> None:
        """Look, after this change of the fleet, if another server is reported."""
        seen: list[Any] = [
            (node.report.servers, node.id, node.origin, node.state)
            for node in self._current.fleet.nodes
            if node.report.servers
        ]
        if seen or self._polled:
            seen.append(self._registry.client.named())
        if seen != self._seen and not self._due:
            self._due = True
            self._loop.call_soon(self._soon, seen)

    def _soon(self, seen: list[Any]) -> None:
        self._due = False
        if not self.closed:
            guarded(FOLLOW, partial(self._follow, seen))

    def _follow(self, seen: list[Any]) -> None:
        """Do so; after a failure, the next change of the fleet tries again."""
        named = self._registry.client.named()
        own = addresses() if any(is_loopback(each.host) for each in named) else ()
        wanted = adopted(self._current.fleet, named, own)
        for url, server in tuple(self._polled.items()):
            if wanted.get(url) != (server.setting, server.origin, server.base):
                self._registry.forget(server)
                del self._polled[url]
        for url, found in wanted.items():
            if url not in self._polled:
                server = Server(*found, upstream=self._upstream)
                self._registry.lend(server)
                self._polled[url] = server
        self._seen = seen


def adopted(
    fleet: Fleet, named: Collection[Origin], own: Collection[str]
) -> dict[str, tuple[ServerSetting, Origin, str]]:
    """Return settings, origin and base of what nodes have adopted, by URL. Pure.

    One that is `named` by a setting of the balancer counts once, and so does one that
    two nodes of one machine report. `own`: addresses of the balancer's machine.
    """
    found = dict[str, tuple[ServerSetting, Origin, str]]()
    places = set[tuple[str, int]]()
    for node in fleet.nodes:
        for each in node.report.servers[:MOST] if node.state in USABLE else ():
            place = node.origin.host, each.port
            if place in places or _is_named(node, each.port, named, own):
                continue
            places.add(place)
            setting = setting_of(node, each)
            found[setting.url] = setting, node.origin, f"{SERVERS}/{each.port}"
    return found


USABLE = frozenset(("up", "suspect"))
"""States of nodes that relay requests, or will do so again in a moment."""


def setting_of(node: Node, server: AdoptedServer) -> ServerSetting:
    """Return the settings of an adopted server; its URL is that on its own machine."""
    report = node.report
    return ServerSetting(
        url=f"http://127.0.0.1:{server.port}#{report.name}-{report.id[:8]}",
        name=f"{report.name}/{server.name}",
        kind=_KINDS.get(server.kind, "auto"),  # a newer node may know more
        width=server.width,
        context=server.context,
        models=server.models,
        abilities=tuple(each for each in ABILITIES if each in server.abilities),
        last_resort=server.last_resort,
    )


def _is_named(
    node: Node, port: int, named: Collection[Origin], own: Collection[str]
) -> bool:
    host, name = node.origin.host, node.report.name.lower()
    hosts = {host, name, f"{name}.local"}
    is_here = is_loopback(host) or host in own
    return any(
        each.port == port
        and (each.host.lower() in hosts or (is_here and is_loopback(each.host)))
        for each in named
    )
