"""Continuation probes: find out whether servers go on with an answer that broke off.

What a server makes of a last message of the assistant depends on its program, on the
model's template and on its settings: many close it and begin anew. So a server gets the
rest of an answer only once it was seen to go on: a short greedy answer is asked for
whole, and then from its middle; the second has to be the rest of the first.

That costs a server that is not ours two answers of 16 tokens, once for each model and
each of two ways, and again when the server was away. It happens after its first own
answer, in a slot that no request waits for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from os.path import commonprefix
from typing import Any

import msgspec

from balancer.dialects import chunks
from balancer.dialects.base import Dialect, Transcript
from balancer.dialects.chat import Chat
from balancer.dialects.completion import Completion
from balancer.discovery.node_client import NodeClient
from balancer.fleet.engines import EngineCandidate, EngineIncarnation
from balancer.servers.stream import ServerEvents
from balancer.state import BalancerState
from edgeserve.errors import EdgeserveError, NodeLost
from edgeserve.http.sse import DONE, EventReader
from edgeserve.runtime.background import Tasks, background, declared
from edgeserve.served import Continued
from edgeserve.servers.requests import portable_body

log = logging.getLogger(__name__)

CONTINUATION = declared("continuation probe", "never")

LOOK_SECONDS = 1.0
"""Between two looks for a free slot."""

SECONDS = 60.0
"""Longest wait for both answers."""

TRIES = 3
"""A probe that gave its slot up to a request is made again."""

TOKENS = 16
SURE = 4
"""Characters by which an answer that goes on differs from one that begins anew."""

Json = dict[str, Any]

ASKED: dict[Continued, tuple[str, type[Dialect], Json]] = {
    "chat": (
        "/v1/chat/completions",
        Chat,
        {"messages": [{"role": "user", "content": "Count from one to twenty."}]},
    ),
    "completion": (
        "/v1/completions",
        Completion,
        {"prompt": "The numbers in words: one, two, three, four,"},
    ),
}


@dataclass(frozen=True)
class Written:
    """What a server wrote, in the pieces in which it came. `stopped`: by itself."""

    pieces: tuple[str, ...]
    stopped: bool

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)


def cut(pieces: tuple[str, ...]) -> int:
    """Return where to cut an answer in two: after how many pieces; 0 for nowhere. Pure.

    Best before white space, as some programs take it from the start of an answer.
    """
    middle = len(pieces) / 2
    spaced = [n for n in range(1, len(pieces)) if pieces[n][:1].isspace()]
    return min(
        spaced or range(1, len(pieces)), key=lambda n: abs(n - middle), default=0
    )


def goes_on(before: str, whole: Written, again: Written) -> bool | None:
    """Whether the second answer is the rest of the first, after `before`. Pure.

    None where an answer that begins anew would look the same.
    """
    rest = whole.text[len(before) :]
    if len(rest.strip()) < SURE or whole.text.startswith(rest[: SURE + 1]):
        return None
    space = before[len(before.rstrip()) :]
    text = again.text[len(commonprefix((space, again.text))) :]  # noqa: RUF071 - texts
    if whole.stopped:
        return text.rstrip() == rest.rstrip()
    return text.startswith(rest)


@asynccontextmanager
async def continuing(
    state: BalancerState, nodes: NodeClient
) -> AsyncGenerator[ContinuationProbe]:
    """Probe servers that have answered, for the length of the block."""
    async with background() as tasks:
        probe = ContinuationProbe(state, nodes, tasks)
        state.queue.grows.subscribe(probe.yield_slots)
        yield probe


class ContinuationProbe:
    """Probes servers of other programs, once for each model and way until it is back.

    `answered` is told of every answer of a server.
    """

    def __init__(self, state: BalancerState, nodes: NodeClient, tasks: Tasks) -> None:
        self._state = state
        self._nodes = nodes
        self._tasks = tasks
        self._begun = set[tuple[EngineIncarnation, Continued]]()
        self._running = set[asyncio.Timeout]()

    def answered(self, to: EngineCandidate, dialect: type[Dialect]) -> None:
        """Have a server probed in the way in which such an answer would go on."""
        way = dialect.resumed_by()
        name = to.incarnation, way
        if name in self._begun or not dialect.streams:
            return
        old = {each for each in self._begun if each[0][:2] == to.key}
        self._begun -= {each for each in old if each[0] != to.incarnation}
        self._begun.add(name)
        self._tasks.start(CONTINUATION, partial(self._probe, to, way), to.node)

    def yield_slots(self) -> None:
        """A request waits: give up the slots that it could have."""
        for each in self._running:
            each.reschedule(0.0)

    async def _probe(self, to: EngineCandidate, way: Continued) -> None:
        """Probe as soon as there is a free slot, unless the server goes before."""
        tries = 0
        while tries < TRIES:
            await asyncio.sleep(LOOK_SECONDS)
            current = self._state.current.candidates
            found = next((e for e in current if e.incarnation == to.incarnation), None)
            if found is None:
                return
            if self._is_free(found):
                tries += 1
                if await self._tried(found, way):
                    return

    def _is_free(self, to: EngineCandidate) -> bool:
        busy = self._state.slot_counts.busy(to.key)
        waits = self._state.queue.waiting
        return to.unavailable is None and not waits and busy < to.engine.slots

    async def _tried(self, to: EngineCandidate, way: Continued) -> bool:
        """Probe it now; False where a request wanted the slot."""
        self._state.slot_counts.take(to.key, 1)
        began = asyncio.get_running_loop().time()
        limit = asyncio.timeout(SECONDS)
        try:
            async with limit:
                self._running.add(limit)
                shown = await self._shown(to, way)
        except TimeoutError:
            return asyncio.get_running_loop().time() - began >= SECONDS
        except (EdgeserveError, ValueError) as error:
            log.info("%s was not seen to continue: %s", to.node, error)
            shown = False if isinstance(error, NotContinued) else None
        finally:
            self._running.discard(limit)
            self._state.slot_counts.give_back(to.key, 1)
            self._state.queue.changed()
        if shown is not None:
            self._nodes.shown(to, way, goes_on=shown)
        return True

    async def _shown(self, to: EngineCandidate, way: Continued) -> bool | None:
        path, dialect, asked = ASKED[way]
        asked = {**asked, "stream": True, "temperature": 0, "max_tokens": TOKENS}
        whole = await self._written(to, path, dialect(asked), asked)
        before = "".join(whole.pieces[: cut(whole.pieces)])
        if not before.strip() or goes_on(before, whole, Written((), True)) is None:
            return None
        onward = dialect(asked).continued(Transcript(text=before.rstrip()))
        try:
            again = await self._written(to, path, dialect(onward), onward)
        except NodeLost as error:
            raise NotContinued(str(error)) from error
        return goes_on(before, whole, again)

    async def _written(
        self, to: EngineCandidate, path: str, dialect: Dialect, asked: Json
    ) -> Written:
        """Ask for an answer. Raises NodeLost or ValueError."""
        body = portable_body(msgspec.json.encode(asked), to.engine, {})
        reader, source, pieces, stopped = EventReader(), ServerEvents(), [], False
        async with self._nodes.probe(to, path, body) as answer:
            if answer.status != 200:
                said = (await answer.read())[:200].decode(errors="replace")
                raise NodeLost(f"a probe was answered {answer.status}: {said}")
            while piece := await answer.chunk():
                for each in reader.feed(source.feed(piece)):
                    if not each.data or each.data == DONE:
                        continue
                    event = msgspec.json.decode(each.data, type=Json)
                    if "error" in event:
                        raise NodeLost(f"a probe failed: {str(event)[:200]}")
                    pieces.append(dialect.parse(event).text)
                    end = chunks.choice(event).get("finish_reason")
                    stopped = stopped or end == "stop"
                    source.begun = True
        return Written(tuple(filter(None, pieces)), stopped)


class NotContinued(NodeLost):
    """A server refused to go on with an answer."""
