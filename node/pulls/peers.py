"""Peers: asks other nodes for what they have, and for parts of their files."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlencode

from edgeserve.errors import EdgeserveError, NodeLost
from edgeserve.http.types import Origin, Upstream, origins_of
from edgeserve.orders.pulls import (
    FILES,
    PULLS,
    Peer,
    PullOrder,
    PullReport,
    SharedFile,
    SharedFiles,
)
from edgeserve.wire import decode
from node.pulls.shared import Wanted

log = logging.getLogger(__name__)

ASK_SECONDS = 5.0
PIECE_SECONDS = 60.0
"""How long a peer may take for a piece before it counts as lost; that a machine is gone
shows sooner, see `edgeserve.http.sockets.notice_silence`."""

UNREACHABLE = (EdgeserveError, OSError, TimeoutError)

T = TypeVar("T")


@dataclass(frozen=True)
class Holder:
    """A peer that has a file, and what it says of it."""

    peer: Peer
    origin: Origin
    file: SharedFile


@dataclass(frozen=True)
class Found:
    """Who has what is wanted; `reading`: peers that may have it and still look."""

    holders: tuple[Holder, ...] = ()
    reading: tuple[Peer, ...] = ()


class Peers:
    """The other nodes that an order names. `upstream` makes them prove themselves."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._origins: dict[Peer, Origin] = {}

    async def find(self, peers: Iterable[Peer], wanted: Wanted) -> Found:
        """Ask all at once; who does not answer has nothing."""
        asked = tuple(peers)
        query = urlencode(
            {
                key: value
                for key in ("content", "size", "model")
                if (value := getattr(wanted, key)) not in ("", None)
            }
        )
        answers = await asyncio.gather(
            *(self._asked(each, f"{FILES}?{query}", SharedFiles) for each in asked)
        )
        holders, reading = list[Holder](), list[Peer]()
        for peer, answer in zip(asked, answers, strict=True):
            if answer is None:
                continue
            holders += (Holder(peer, self._origins[peer], f) for f in answer.files)
            if answer.reading:
                reading.append(peer)
        return Found(tuple(holders), tuple(reading))

    async def pulls(
        self, peers: Iterable[Peer], order: PullOrder
    ) -> list[tuple[Peer, PullReport]]:
        """Return the pulls of the same source that peers have, or had lately."""
        asked = tuple(peers)
        answers = await asyncio.gather(
            *(self._asked(each, PULLS, list[PullReport]) for each in asked)
        )
        what = (order.source, order.revision)
        return [
            (peer, pull)
            for peer, pulls in zip(asked, answers, strict=True)
            for pull in pulls or ()
            if (pull.source, pull.revision) == what
        ]

    async def holding(
        self, peers: Iterable[Peer], path: str, shape: type[object], file: SharedFile
    ) -> list[Holder]:
        """Return those that answer `path` with a `shape`: they have the file."""
        asked = tuple(peers)
        answers = await asyncio.gather(
            *(self._asked(each, path, shape) for each in asked)
        )
        return [
            Holder(peer, self._origins[peer], file)
            for peer, answer in zip(asked, answers, strict=True)
            if answer is not None
        ]

    async def part(self, holder: Holder, first: int, count: int) -> bytes:
        """Return a range of a file. Raises EdgeserveError, OSError, TimeoutError."""
        headers = {"range": f"bytes={first}-{first + count - 1}"}
        path = f"{FILES}/{holder.file.sha256}"
        ask = self._upstream.ask(holder.origin, "GET", path, headers)
        async with asyncio.timeout(PIECE_SECONDS), ask as answer:
            if answer.status != HTTPStatus.PARTIAL_CONTENT:
                raise NodeLost(f"{holder.peer.name} answers {answer.status}")
            data = await answer.read()
        if len(data) != count:
            raise NodeLost(f"{holder.peer.name} sent {len(data)} of {count} bytes")
        return data

    async def _asked(self, peer: Peer, path: str, shape: type[T]) -> T | None:
        """Ask a peer at the address where it last answered, then at the others."""
        known = self._origins.get(peer)
        for origin in (known,) if known else origins_of(peer.id, peer.urls):
            with suppress(*UNREACHABLE):
                async with (
                    asyncio.timeout(ASK_SECONDS),
                    self._upstream.ask(origin, "GET", path, {}) as answer,
                ):
                    body = await answer.read()
                    if answer.status == HTTPStatus.OK:
                        found = decode(body, shape)
                        self._origins[peer] = origin
                        return found
        self._origins.pop(peer, None)
        return None
