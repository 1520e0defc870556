"""Cache orders: have a node save a slot, or take a state from another node."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from balancer.discovery.node_answers import told
from balancer.discovery.node_client import NodeClient
from balancer.fleet.engines import EngineCandidate
from balancer.fleet.members import Fleet, Node
from balancer.fleet.peers import peer_of
from balancer.prediction.prefix_cache import CachedPrefix
from edgeserve.errors import NodeLost
from edgeserve.orders.caches import (
    SAVE,
    TAKE,
    SavedState,
    SaveSlot,
    TakenState,
    TakeState,
)
from edgeserve.wire import encode

T = TypeVar("T")


@dataclass(eq=False)
class CacheOrders:
    """Sends them. All raise OrderRefused, NodeLost."""

    nodes: NodeClient

    async def save(
        self,
        to: EngineCandidate,
        slot: int,
        content: CachedPrefix,
        worth: float,
        instead: Iterable[str],
        seconds: float,
    ) -> SavedState:
        """Have the node of an engine save a slot."""
        order = SaveSlot(
            engine=to.engine.id,
            epoch=to.engine.epoch,
            slot=slot,
            name=content.prompt.blocks[-1].hex(),
            tokens=max(1, round(content.tokens)),
            worth=worth,
            instead=tuple(instead),
        )
        return await self._told(to, SAVE, encode(order), SavedState, seconds)

    async def restore(
        self,
        to: EngineCandidate,
        slot: int,
        state: SavedState,
        fleet: Fleet,
        holders: Iterable[Node],
        seconds: float,
    ) -> TakenState:
        """Put a state into a slot."""
        order = TakeState(
            state=state,
            peers=tuple(peer_of(fleet, each) for each in holders),
            engine=to.engine.id,
            epoch=to.engine.epoch,
            slot=slot,
        )
        return await self._told(to, TAKE, encode(order), TakenState, seconds)

    async def fetch(
        self,
        to: EngineCandidate,
        state: SavedState,
        fleet: Fleet,
        holders: Iterable[Node],
        seconds: float,
    ) -> TakenState:
        """Have a node keep a state that others have."""
        peers = tuple(peer_of(fleet, each) for each in holders)
        body = encode(TakeState(state=state, peers=peers))
        return await self._told(to, TAKE, body, TakenState, seconds)

    async def _told(
        self,
        to: EngineCandidate,
        path: str,
        body: bytes,
        shape: type[T],
        seconds: float,
    ) -> T:
        try:
            async with asyncio.timeout(seconds):
                answering = self.nodes.order(to.origin, path, body)
                return await told(answering, to.node, shape)
        except TimeoutError as error:
            raise NodeLost(f"{to.node} took longer than {seconds:.1f} s") from error
