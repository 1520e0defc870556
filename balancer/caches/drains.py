"""Drains: take what slots hold from nodes and engines that are about to end.

A node that shuts down waits a moment for these orders. Each conversation that is worth
it is saved there, and fetched by the node where it would go next, which restores it
when the conversation goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from balancer.caches.mover import PATIENCE, CacheMover
from balancer.caches.orders import CacheOrders
from balancer.discovery.node_client import NodeClient
from balancer.fleet.engines import EngineCandidate
from balancer.prediction.cost import cheapest
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.prefix_cache import CachedPrefix
from balancer.prediction.slot_match import features_of
from balancer.prediction.states.known import KnownState
from balancer.prediction.states.moves import CacheMove
from balancer.state import BalancerState
from edgeserve.errors import EdgeserveError
from edgeserve.orders.caches import CacheFit
from edgeserve.runtime.background import Tasks, background, declared

log = logging.getLogger(__name__)

DRAINS = declared("cache moves")
MOVE = declared("cache move", "never")

BACKGROUND = 0.1
"""What a second counts that no request waits for."""

PAUSE = 0.05
"""Seconds between two looks: each request changes the fleet."""

AT_ONCE = 3
"""Conversations that are moved from a node at the same time."""


@asynccontextmanager
async def moving_caches(
    state: BalancerState, nodes: NodeClient
) -> AsyncGenerator[CacheMover]:
    """Hold the mover; take from nodes that drain, for the length of the block."""
    mover = CacheMover(state=state, orders=CacheOrders(nodes))
    drains = Drains(mover)
    state.current.listen(drains.look)
    async with background() as tasks:
        tasks.start(DRAINS, partial(drains.watch, tasks))
        yield mover


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """What an idle slot holds of an engine that is about to end."""

    engine: EngineCandidate
    slot: int
    content: CachedPrefix
    move: CacheMove
    to: EngineCandidate
    chance: float

    @property
    def gain(self) -> float:
        """Seconds that moving it spares, as often as it is missed."""
        ahead = BACKGROUND * (self.move.save + self.move.link)
        return self.chance * (self.move.read - self.move.restore) - ahead


@dataclass(eq=False)
class Drains:
    """The nodes and engines that end, and what was moved from them.

    `turns` limit the moves from each node.
    """

    mover: CacheMover
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    done: dict[tuple[object, ...], set[bytes]] = field(
        default_factory=dict[tuple[object, ...], set[bytes]]
    )
    turns: dict[str, asyncio.Semaphore] = field(
        default_factory=lambda: defaultdict(lambda: asyncio.Semaphore(AT_ONCE))
    )

    def look(self) -> None:
        """Look soon: the fleet has changed."""
        self.woken.set()

    async def watch(self, tasks: Tasks) -> None:
        """Move what is worth it, for ever."""
        while True:
            await self.woken.wait()
            self.woken.clear()
            self.begin(tasks)
            await asyncio.sleep(PAUSE)

    def begin(self, tasks: Tasks) -> None:
        """Begin the moves that are worth it now.

        Each is a task of its own: one that hangs holds up no other node's.
        """
        for each in sorted(self._leaving(), key=lambda each: -each.gain):
            name = each.content.prompt.blocks[-1]
            self.done[each.engine.incarnation].add(name)
            self.mover.moving.setdefault(name, asyncio.Event())
            tasks.start(MOVE, partial(self._moved, each), each.engine.node)

    async def _moved(self, leaving: Leaving) -> None:
        """Save a slot, and have the next node fetch it, in its node's turn."""
        try:
            async with self.turns[leaving.engine.node_id]:
                await self._move(leaving)
        finally:
            name = leaving.content.prompt.blocks[-1]
            if (event := self.mover.moving.pop(name, None)) is not None:
                event.set()

    async def _move(self, leaving: Leaving) -> None:
        mover, content = self.mover, leaving.content
        fit = leaving.engine.engine.saves
        known = mover.known.get(content, fit) if fit else None
        if known is None:
            known = await mover.save(
                leaving.engine, leaving.slot, content, leaving.move.read
            )
        if known is not None and leaving.to.node_id not in known.nodes:
            await self._fetched(leaving, known)

    async def _fetched(self, leaving: Leaving, known: KnownState) -> None:
        mover, fleet, to = self.mover, self.mover.state.current.fleet, leaving.to
        holders = [node for id_ in known.nodes if (node := fleet.node(id_)) is not None]
        limit = 1 + PATIENCE * leaving.move.predicted
        try:
            taken = await mover.orders.fetch(to, known.state, fleet, holders, limit)
        except EdgeserveError as error:
            log.info("%s does not take a state: %s", to.node, error)
            return
        known.nodes.add(to.node_id)
        link = mover.speeds.link(leaving.engine.node_id, to.node_id)
        link.learn(known.state.size, taken.fetched)

    def _leaving(self) -> Iterator[Leaving]:
        """Return what is worth moving and was not moved yet."""
        state = self.mover.state
        ends = [each for each in state.current.candidates if self._ends(each)]
        if not ends:
            self.done.clear()
            self.turns.clear()
        for each in ends:
            model = state.predictive.fleet_model.get(each.key)
            if model is None or each.engine.saves is None:
                continue
            moved = self.done.setdefault(each.incarnation, set())
            for slot in model.idle_slots():
                content = model.cache_index.contents[model.places[slot]]
                if content is None or not content.prompt.blocks:
                    continue
                if content.prompt.blocks[-1] in moved:
                    continue
                found = self._judged(each, slot, content)
                if found is not None and found.gain > 0 and found.move.pays:
                    yield found

    def _ends(self, each: EngineCandidate) -> bool:
        """Whether an engine is about to end, and still answers."""
        if each.unavailable is None or each.engine.kind == "server":
            return False
        return each.engine.state == "leaving" or self._drains(each)

    def _drains(self, each: EngineCandidate) -> bool:
        node = self.mover.state.current.fleet.node(each.node_id)
        return node is not None and node.state == "draining"

    def _judged(
        self, at: EngineCandidate, slot: int, content: CachedPrefix
    ) -> Leaving | None:
        """Predict a move to where the conversation would go next."""
        fit, state = at.engine.saves, self.mover.state
        target = self._next(at, content) if fit else None
        if target is None or fit is None:
            return None
        engine, to = target
        read = engine.speed.prefill_seconds(content.tokens, 0.0) * engine.scale
        move = self.mover.speeds.planned(
            source=(at.node_id, at.node),
            target=(to.node_id, to.node),
            tokens=content.tokens,
            size=self.mover.size(at, fit, content.tokens),
            saves=self.mover.known.get(content, fit) is None,
            read=read,
            why=f"{at.node} ends",
        )
        now = state.records.clock()
        workload = state.predictive.dispatcher.workload(at.engine.model)
        chances = workload.chances(now)
        chance = chances.to_be_missed(content.client, now - content.since)
        return Leaving(
            engine=at, slot=slot, content=content, move=move, to=to, chance=chance
        )

    def _next(
        self, at: EngineCandidate, content: CachedPrefix
    ) -> tuple[EngineModel, EngineCandidate] | None:
        """Return the engine that would cost least, of those that the state fits.

        An engine that only unloads may have it back: its node keeps it. So may one
        whose node shuts down where no other can take it: mostly it starts again.
        """
        state, fit = self.mover.state, at.engine.saves
        fleet_model = state.predictive.fleet_model
        model = fleet_model.get(at.key)
        itself = (model, at) if model else None
        if not self._drains(at):
            return itself
        there = {
            id(model): (model, each)
            for each in state.current.candidates
            if each.node_id != at.node_id
            and fits(each, fit, content.tokens)
            and (model := fleet_model.get(each.key)) is not None
        }
        now = state.records.clock()
        models = [model for model, _ in there.values()]
        for each in models:
            each.refresh(now)
        features = features_of(
            content.prompt,
            state.predictive.dispatcher.workload(at.engine.model),
            fleet_model.cache_index,
            now,
            tokens=content.tokens,
        )
        best, _ = cheapest(features, models)
        return there[id(best.engine)] if best is not None else itself


def fits(each: EngineCandidate, fit: CacheFit | None, tokens: float) -> bool:
    """Whether an engine takes requests, and a state of so many tokens fits it."""
    usable = each.unavailable is None and each.engine.saves == fit
    return usable and each.engine.context > tokens
