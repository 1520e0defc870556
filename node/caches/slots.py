"""Slot caches: save what slots hold, take it from other nodes, put it into slots."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edgeserve.errors import NodeLost
from edgeserve.http.types import Upstream
from edgeserve.openai import message
from edgeserve.orders.caches import (
    CACHES,
    SavedState,
    SaveSlot,
    TakenState,
    TakeState,
)
from edgeserve.orders.pulls import SharedFile
from edgeserve.runtime.files import remove
from edgeserve.runtime.tasks import in_thread
from node.caches.errors import (
    CacheRefusal,
    DamagedState,
    ForeignState,
    NoSuchState,
    StaleState,
)
from node.caches.store import StateStore, fits
from node.engines.probe import Probe
from node.pulls.copying import NotCopied, copy_from
from node.pulls.peers import Holder, Peers
from node.supervision.supervisor import Supervisor

log = logging.getLogger(__name__)

SLOT_SECONDS = 20.0
"""How long an engine may take to save or restore a slot, which waits while it works."""

NEAR = 2
"""Tokens by which a slot may differ from what the balancer has counted."""

Engines = Callable[[], Iterable[Supervisor]]


class _Answer(msgspec.Struct):
    n_saved: int = 0
    n_restored: int = 0


class SlotCaches:
    """The saved states of a node, and the slots of its engines."""

    def __init__(
        self, store: StateStore, engines: Engines, upstream: Upstream, peers: Peers
    ) -> None:
        self.store = store
        self._engines = engines
        self._upstream = upstream
        self._peers = peers
        self._fetching = defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._working = 0
        self.used_at = time.monotonic()

    @contextmanager
    def work(self) -> Generator[None]:
        """Count as at work for the length of the block."""
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1
            self.used_at = time.monotonic()

    @property
    def quiet_seconds(self) -> float:
        """How long nothing was asked; 0 while something is done."""
        return 0.0 if self._working else time.monotonic() - self.used_at

    def path(self, sha256: str) -> Path | None:
        """Return the file of a state that another node asks for."""
        found = self.store.path(sha256)
        if found is not None:
            self.used_at = time.monotonic()
        return found

    async def save(self, order: SaveSlot) -> SavedState:
        """Save a slot. Raises CacheRefusal, NoRoom, OSError."""
        engine = self._engine(order.engine, order.epoch)
        with self.work(), engine.use.saving():
            fit = engine.report.saves
            if fit is None:
                raise CacheRefusal(f"{order.engine} cannot save what its slots hold")
            part = await asyncio.to_thread(self.store.begun)
            try:
                answer = await self._act(engine, order.slot, "save", part.name)
                if abs(answer.n_saved - order.tokens) > NEAR:
                    raise StaleState(
                        f"slot {order.slot} holds {answer.n_saved} tokens, not the"
                        f" {order.tokens} that were asked for"
                    )
                about = {"name": order.name, "fit": fit, "worth": order.worth}
                state = await in_thread(
                    lambda: self.store.sums(part, tokens=answer.n_saved, **about)
                )
                await in_thread(self.store.add, part, state, engine.spec.path)
            finally:
                await asyncio.to_thread(remove, part)
            older = [each for each in order.instead if each != state.id]
            await in_thread(self.store.drop, older)
            return state

    async def take(self, order: TakeState) -> TakenState:
        """Fetch a state unless it is here; restore it if an engine is named.

        Raises CacheRefusal, OSError.
        """
        with self.work():
            engine = self._engine(order.engine, order.epoch) if order.engine else None
            if engine is not None:
                _check_fit(order.state, engine)
            began = time.monotonic()
            await self._fetched(order, engine)
            fetched = time.monotonic()
            if engine is None:
                return TakenState(fetched=fetched - began)
            name = await self._verified(order, engine)
            verified = time.monotonic()
            answer = await self._act(engine, order.slot, "restore", name)
            return TakenState(
                tokens=answer.n_restored,
                fetched=fetched - began,
                verified=verified - fetched,
                restored=time.monotonic() - verified,
            )

    async def _fetched(self, order: TakeState, engine: Supervisor | None) -> None:
        """Have a state here; of several orders at once the first one fetches it."""
        id_ = order.state.id
        try:
            async with self._fetching[id_]:
                if self.store.find(id_) is None:
                    await self._fetch(order, engine)
        finally:
            self._fetching.pop(id_, None)

    async def _verified(self, order: TakeState, engine: Supervisor) -> str:
        """Return the name of a file that is right; a damaged one is fetched again."""
        try:
            return await in_thread(self.store.verified, order.state.id)
        except DamagedState as damage:
            if not order.peers:
                raise
            log.warning("%s", damage)
        await self._fetch(order, engine)
        return await in_thread(self.store.verified, order.state.id)

    def _engine(self, id_: str, epoch: int) -> Supervisor:
        engine = next((each for each in self._engines() if each.spec.id == id_), None)
        if engine is None:
            raise StaleState(f"{id_} is not loaded here")
        report = engine.report
        if report.epoch != epoch or report.state not in {"ready", "busy", "leaving"}:
            raise StaleState(f"{id_} has restarted or is {report.state}")
        return engine

    async def _act(
        self, engine: Supervisor, slot: int, action: str, name: str
    ) -> _Answer:
        """Have an engine save or restore a slot. Raises CacheRefusal."""
        if slot >= engine.spec.launch.slots:
            raise StaleState(f"{engine.spec.id} has no slot {slot}")
        probe = Probe(self._upstream, engine.origin, engine.api_key)
        body = msgspec.json.encode({"filename": name})
        try:
            async with asyncio.timeout(SLOT_SECONDS):
                status, answer = await probe.ask(
                    "POST", f"/slots/{slot}?action={action}", body
                )
        except TimeoutError as error:
            raise CacheRefusal(
                f"slot {slot} was at work for {SLOT_SECONDS:g} s"
            ) from error
        except NodeLost as error:
            raise StaleState(f"{engine.spec.id} has ended: {error}") from error
        if status != 200:
            raise CacheRefusal(f"cannot {action} slot {slot}: {message(answer)}")
        return msgspec.json.decode(answer, type=_Answer)

    async def _fetch(self, order: TakeState, engine: Supervisor | None) -> None:
        """Copy a state from the peers that have it. Raises CacheRefusal, OSError."""
        file = engine.spec.path if engine else self._file_for(order.state)
        state = order.state
        part = await asyncio.to_thread(self.store.begun, state.size)
        shared = SharedFile(
            sha256=state.sha256, size=state.size, name=state.id, pieces=state.pieces
        )
        where = f"{CACHES}/{state.id}"
        try:
            holders = await self._peers.holding(order.peers, where, SavedState, shared)
            if not holders:
                raise NoSuchState("no node that is asked has the state")
            await in_thread(part.touch, 0o600)
            await self._copy(holders, part)
            await in_thread(self.store.add, part, state, file)
        except NotCopied as error:
            raise NoSuchState(f"no peer sends the state: {error}") from error
        finally:
            await asyncio.to_thread(remove, part)

    async def _copy(self, holders: Sequence[Holder], part: Path) -> None:
        """Fill a file. Raises NotCopied, OSError."""
        ended = False

        def look(_: int, __: frozenset[str]) -> None:
            if ended:
                raise InterruptedError("it is not waited for")

        loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(copy_from, self._peers, holders, part, loop, look)
        finally:
            ended = True

    def _file_for(self, state: SavedState) -> Path:
        """Return the model file that a state is of. Raises ForeignState."""
        for each in self._engines():
            if each.report.saves == state.fit:
                return each.spec.path
        raise ForeignState("no engine of this node can use the state")


def _check_fit(state: SavedState, engine: Supervisor) -> None:
    fit = engine.report.saves
    if fit is None:
        raise ForeignState(f"{engine.spec.id} cannot restore states")
    if differs := fits(state.fit, fit):
        raise ForeignState(f"the state is of another engine: {differs}")
    if state.tokens > engine.report.context:
        raise ForeignState(
            f"the state has {state.tokens} tokens, and {engine.spec.id} takes"
            f" {engine.report.context}"
        )
