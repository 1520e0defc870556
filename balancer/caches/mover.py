"""Cache mover: brings to a slot what its request needs, where that is quicker.

Before a request is sent, what its slot holds may be saved for the conversation that it
belongs to, and a state of its own conversation may be restored: from the disk of the
same node, from that of another one, or from an idle slot elsewhere. What fails costs
its time only: the engine reads anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from balancer.caches.orders import CacheOrders
from balancer.dialects.prompt import Prompt, common
from balancer.fleet.engines import EngineCandidate
from balancer.fleet.members import Node
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.prefix_cache import CachedPrefix
from balancer.prediction.speed import parameters
from balancer.prediction.states.known import KnownState, KnownStates
from balancer.prediction.states.moves import LEAST, CacheMove, MoveSpeeds, Place
from balancer.routing.decision import Send
from balancer.routing.tracking import AttemptTracker
from balancer.state import BalancerState
from edgeserve.errors import EdgeserveError
from edgeserve.orders.caches import CacheFit

log = logging.getLogger(__name__)

PATIENCE = 3.0
"""A step may take so many times as long as expected, and a second, before it is
given up."""

ANSWER = frozenset(("up", "draining"))
"""States of nodes that give what they have."""

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a state is: saved on nodes, or in an idle slot of an engine."""

    content: CachedPrefix
    known: KnownState | None = None
    engine: EngineCandidate | None = None
    slot: int = 0

    def shared(self, prompt: Prompt) -> float:
        """Return how many tokens of a prompt it has."""
        depth = common(self.content.prompt, prompt)
        return self.content.shared(depth, prompt) if depth else 0.0


@dataclass(kw_only=True)
class CacheMover:
    """Moves states for requests. `moving` are names of those that are on their way."""

    state: BalancerState
    orders: CacheOrders
    clock: Clock = time.monotonic
    known: KnownStates = field(default_factory=KnownStates)
    speeds: MoveSpeeds = field(default_factory=MoveSpeeds)
    moving: dict[bytes, asyncio.Event] = field(
        default_factory=dict[bytes, asyncio.Event]
    )

    async def prepare(self, send: Send) -> None:
        """Do what spares a request more time than it takes; raises nothing."""
        if not isinstance(send, AttemptTracker):
            return
        assignment, fit = send.assignment, send.to.engine.saves
        if fit is None or assignment.request.slots > 1:
            return
        if assignment.estimate.read < LEAST and assignment.replaced is None:
            return
        slot = send.slot if send.slot is not None else 0
        if send.slot is None and send.to.engine.slots > 1:
            return
        began = self.clock()
        if assignment.replaced is not None:
            await self._keep(send, fit, slot, assignment.replaced)
        if assignment.estimate.read >= LEAST and self.speeds.trusted(fit):
            await self._bring(send, fit, slot)
        send.prepared = self.clock() - began

    def judge(self, send: Send) -> None:
        """Learn after an attempt whether its move has spared anything."""
        if not isinstance(send, AttemptTracker) or send.cache_move is None:
            return
        move, fit = send.cache_move, send.to.engine.saves
        if move.outcome == "moved" and send.cached is not None and fit is not None:
            self.speeds.judge(fit, move.tokens, send.cached)

    async def _keep(
        self, send: AttemptTracker, fit: CacheFit, slot: int, content: CachedPrefix
    ) -> None:
        """Save what a slot loses, unless that takes longer than it is worth."""
        loss = send.assignment.estimate.loss
        size = self.size(send.to, fit, content.tokens)
        seconds = self.speeds.save(send.to.node_id).seconds(size)
        # Answers in other slots stand still meanwhile.
        seconds *= len(send.assignment.engine.load.requests)
        if self.known.get(content, fit) is None and seconds + LEAST < loss:
            await self.save(send.to, slot, content, worth=loss)

    async def _bring(self, send: AttemptTracker, fit: CacheFit, slot: int) -> None:
        if (gone := self.moving.get(self._coming(send))) is not None:
            await _wait(gone, send.assignment.estimate.read)
        found = self._source(send, fit)
        if found is None:
            return
        move = self._planned(send, fit, found)
        if not move.pays:
            return
        send.cache_move = move
        began = self.clock()
        try:
            known = found.known
            if known is None and found.engine is not None:
                known = await self.save(
                    found.engine, found.slot, found.content, move.read
                )
            if known is None:
                move.outcome = "could not be saved"
                return
            move.outcome = await self._restored(send, slot, known, move)
        finally:
            move.seconds = self.clock() - began

    def _coming(self, send: AttemptTracker) -> bytes:
        """Return the name of a state of this conversation that is on its way."""
        if not self.moving:
            return b""
        prompt = send.assignment.prompt
        return next(
            (
                prompt.blocks[count - 1]
                for count in reversed(prompt.messages)
                if prompt.blocks[count - 1] in self.moving
            ),
            b"",
        )

    def _source(self, send: AttemptTracker, fit: CacheFit) -> Source | None:
        """Return what holds most of a prompt, and more than its slot does."""
        prompt = send.assignment.prompt
        known, live = self.known.longest(prompt, fit), self._live(send, fit)
        if known is None or not self._holders(known):
            return live
        found = Source(content=known.content, known=known)
        if live is None or live.shared(prompt) <= found.shared(prompt):
            return found
        return live

    def _live(self, send: AttemptTracker, fit: CacheFit) -> Source | None:
        """Return an idle slot of another engine that holds most of the prompt."""
        index = self.state.predictive.fleet_model.cache_index
        for _, mask in index.levels(send.assignment.prompt):
            left = mask & index.idle
            while left:
                place = (left & -left).bit_length() - 1
                left &= left - 1
                owner, content = index.owners.get(place), index.contents[place]
                if content is None or not isinstance(owner, EngineModel):
                    continue
                at = send.eligible.candidate_by_name.get(owner.name)
                if at is None or at.key == send.to.key or at.engine.saves != fit:
                    continue
                slot = owner.numbers[place]
                known = self.known.get(content, fit)
                return Source(content=content, known=known, engine=at, slot=slot)
        return None

    def _planned(self, send: AttemptTracker, fit: CacheFit, found: Source) -> CacheMove:
        """Predict the move of a state to the slot of a request."""
        assignment, target = send.assignment, send.to
        content, shared = found.content, found.shared(assignment.prompt)
        spared = max(0.0, min(shared, assignment.tokens - 1) - assignment.cached)
        engine = assignment.engine
        read = engine.speed.prefill_seconds(spared, assignment.cached) * engine.scale
        source = self._holder(found, target.node_id)
        size = self.size(target, fit, content.tokens)
        if found.known is not None:
            size = found.known.state.size
        return self.speeds.planned(
            source=self._named(source),
            target=(target.node_id, target.node),
            tokens=shared,
            size=size,
            saves=found.known is None,
            read=read,
            why="from the disk" if found.known else "from an idle slot",
        )

    def _named(self, id_: str) -> Place:
        node = self.state.current.fleet.node(id_)
        return id_, node.name if node else id_

    def _holder(self, found: Source, target: str) -> str:
        """Return the node that a state comes from; the target itself if it has it."""
        if found.known is None:
            return found.engine.node_id if found.engine else target
        nodes = {each.id for each in self._holders(found.known)}
        return target if target in nodes else min(nodes, default=target)

    def _holders(self, known: KnownState) -> list[Node]:
        """Return the nodes that have a state and answer."""
        fleet = self.state.current.fleet
        found = (fleet.node(id_) for id_ in sorted(known.nodes))
        return [each for each in found if each and each.state in ANSWER]

    async def _restored(
        self, send: AttemptTracker, slot: int, known: KnownState, move: CacheMove
    ) -> str:
        target, fleet = send.to, self.state.current.fleet
        holders = [each for each in self._holders(known) if each.id != target.node_id]
        limit = 1 + PATIENCE * move.predicted
        try:
            taken = await self.orders.restore(
                target, slot, known.state, fleet, holders, limit
            )
        except EdgeserveError as error:
            log.info("a state was not moved to %s: %s", target.node, error)
            self._lost(known, holders, target)
            return str(error)
        known.nodes.add(target.node_id)
        if len(holders) == 1 and move.link:
            link = self.speeds.link(holders[0].id, target.node_id)
            link.learn(known.state.size, taken.fetched)
        self.speeds.restore(target.node_id).learn(
            known.state.size, taken.verified + taken.restored
        )
        return "moved"

    def _lost(
        self, known: KnownState, holders: list[Node], target: EngineCandidate
    ) -> None:
        """Forget a state where it could not be had."""
        for each in (target.node_id, *(node.id for node in holders)):
            self.known.lost(known, each)

    async def save(
        self, at: EngineCandidate, slot: int, content: CachedPrefix, worth: float
    ) -> KnownState | None:
        """Save a slot; None where that fails, which the log says."""
        fit = at.engine.saves
        if fit is None or not content.prompt.blocks:
            return None
        earlier = [
            each
            for each in self.known.earlier(content, fit)
            if at.node_id in each.nodes
        ]
        size = self.size(at, fit, content.tokens)
        limit = 1 + PATIENCE * self.speeds.save(at.node_id).seconds(size)
        began = self.clock()
        try:
            state = await self.orders.save(
                at, slot, content, worth, [each.state.id for each in earlier], limit
            )
        except EdgeserveError as error:
            log.info("a slot of %s was not saved: %s", at.node, error)
            return None
        for each in earlier:
            self.known.lost(each, at.node_id)
        self.speeds.save(at.node_id).learn(state.size, self.clock() - began)
        self.speeds.per_token[fit] = state.size / state.tokens
        known = KnownState(content, state, {at.node_id})
        self.known.put(known)
        return known

    def size(self, at: EngineCandidate, fit: CacheFit, tokens: float) -> float:
        """Return the bytes of a state of so many tokens."""
        return self.speeds.size(fit, tokens, parameters(at.engine.variant))


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for a move that is under way, no longer than reading anew takes."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
