"""A balancer's state with two nodes that save slots, and what it orders of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec

from balancer.caches.mover import CacheMover
from balancer.caches.orders import CacheOrders
from balancer.dialects.prompt import Prompt, chain
from balancer.dialects.timings import Timings
from balancer.fleet.engines import EngineCandidate
from balancer.fleet.members import Fleet
from balancer.prediction.prefix_cache import CachedPrefix
from balancer.queue import SlotClaim
from balancer.routing.decision import Send
from balancer.state import build_state
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import NodeLost
from edgeserve.http.types import Origin
from edgeserve.orders.caches import CacheFit, SavedState, TakenState
from edgeserve.wire import Expected
from tests.balancer.building import a_request, unheard
from tests.fakes.reports import a_report, an_engine

FIT = CacheFit(content="c" * 32, build="b1", kv_type="f16", flash_attention=True)

SLOW = Expected(read=50.0, write=10.0)


@dataclass
class Orders(CacheOrders):
    """Takes orders instead of nodes; `refuses` is what it answers then.

    The node that `hangs` never answers.
    """

    given: list[tuple[str, str, int]] = field(
        default_factory=list[tuple[str, str, int]]
    )
    refuses: str = ""
    hangs: str = ""

    async def save(
        self, to: EngineCandidate, slot: int, content: CachedPrefix, *_: Any
    ) -> SavedState:
        self._note("save", to, slot)
        if to.node == self.hangs:
            await asyncio.Event().wait()
        return SavedState(
            name=content.prompt.blocks[-1].hex(),
            fit=FIT,
            tokens=round(content.tokens),
            size=1000 * round(content.tokens),
            sha256="0" * 64,
            pieces=(),
        )

    async def restore(
        self, to: EngineCandidate, slot: int, state: SavedState, *_: Any
    ) -> TakenState:
        self._note("restore", to, slot)
        return TakenState(tokens=state.tokens, fetched=0.1, restored=0.01)

    async def fetch(self, to: EngineCandidate, *_: Any) -> TakenState:
        self._note("fetch", to, -1)
        return TakenState(fetched=0.1)

    def _note(self, what: str, to: EngineCandidate, slot: int) -> None:
        self.given.append((what, to.node, slot))
        if self.refuses:
            raise NodeLost(self.refuses)


@dataclass
class Moving:
    """A mover over nodes with `slots`; `expected` is how fast they are."""

    slots: dict[str, int]
    expected: Expected = SLOW

    def __post_init__(self) -> None:
        settings = BalancerSettings(calibrate=False)
        self.state = build_state(settings, lambda _: None)
        self.orders = Orders(nodes=None)  # type: ignore[arg-type]  # never asked
        self.mover = CacheMover(state=self.state, orders=self.orders)
        fleet = Fleet()
        for number, (name, slots) in enumerate(self.slots.items()):
            origin = Origin(f"10.0.0.{number + 1}", 8090)
            fleet = fleet.discovered(name, "static", (origin,), None)
            engine = an_engine(slots=slots, saves=FIT, expected=self.expected)
            fleet = fleet.reported(name, origin, a_report(engine, name=name))
        self.state.current.become(fleet)

    def becomes(self, name: str, **fields: Any) -> None:
        """Take in a change of one node's report."""
        node = self.state.current.fleet.node(name)
        assert node is not None
        report = msgspec.structs.replace(node.report, **fields)
        fleet = self.state.current.fleet.reported(name, node.origin, report)
        self.state.current.become(fleet)

    def claim(self, *texts: str) -> SlotClaim:
        """Claim a slot for a conversation of these messages."""
        return self.state.queue.claim(routing(*texts), unheard)

    async def answered(self, *texts: str) -> Send:
        """Have a request prepared, sent and answered."""
        async with self.claim(*texts) as send:
            await self.mover.prepare(send)
            move = getattr(send, "cache_move", None)
            cached = round(move.tokens) if move and move.outcome == "moved" else 0
            tokens = tokens_of(prompt(*texts))
            send.progress(tokens, cached, cached)
            send.wrote()
            read = tokens - cached
            ms = 1000.0 * read / self.expected.read
            send.answered(Timings(cached, read, ms, 2, 100.0))
            self.mover.judge(send)
            return send


def prompt(*texts: str) -> Prompt:
    return chain(f"{each} ".encode() * 200 for each in texts)


def tokens_of(prompt: Prompt) -> int:
    return prompt.size // 4


def routing(*texts: str) -> Any:
    return a_request(prompt=prompt(*texts), budget=2, client="laptop")
