"""Nodes that tell us where they are, because multicast cannot."""

from __future__ import annotations

import asyncio
import re

from balancer.discover import Goodbye, OnEvent, Sighting
from edgeserve.config import NodeSettings
from edgeserve.errors import BadRequest
from edgeserve.relay.upstream import origin_of
from edgeserve.wire import Registration

KEPT_SECONDS = 35.0
"""How long a registration counts; nodes renew theirs every 10 s."""


_PLAIN = re.compile(r"[!-~]{1,300}")
_HOST = re.compile(r"[0-9A-Za-z_.:%-]{1,253}")


class Register:
    """Turns registrations into sightings, and into goodbyes when they run out."""

    def __init__(self, on_event: OnEvent, kept: float = KEPT_SECONDS) -> None:
        self._on_event = on_event
        self._kept = kept
        self._ends: dict[str, asyncio.TimerHandle] = {}

    def sign(self, registration: Registration) -> None:
        """Take a registration, new or renewed. Raises BadRequest for a bad URL."""
        url = registration.url
        scheme = url.partition("://")[0]
        try:
            origin = origin_of(url, NodeSettings.port)
        except ValueError as error:
            raise BadRequest(
                f"{url[:80]!r} is not the URL of a node: {error}"
            ) from error
        named = _HOST.fullmatch(origin.host) and origin.port
        if scheme not in {"http", "https"} or not named or not _PLAIN.fullmatch(url):
            raise BadRequest(
                f"{url[:80]!r} is not a URL such as http://192.168.1.20:8090"
            )
        if url in self._ends:
            self._ends[url].cancel()
        loop = asyncio.get_running_loop()
        self._ends[url] = loop.call_later(self._kept, self._end, url)
        self._on_event(Sighting(url, (origin,), None, "registered"))

    def _end(self, url: str) -> None:
        del self._ends[url]
        self._on_event(Goodbye(url))

    def close(self) -> None:
        """Let no timer outlive the register."""
        for handle in self._ends.values():
            handle.cancel()
