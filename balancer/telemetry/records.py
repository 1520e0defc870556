"""Request log: the latest requests, their routes and outcomes, without content."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

import msgspec

from balancer.composition.routes import Routed
from balancer.dialects.timings import Timings
from balancer.routing.decision import Decision, Send, Verdicts, Wait, shown

KEPT = 1000

MOST_SHOWN = 100
"""Candidates that are shown of one decision."""

ANSWERED = frozenset(("answered", "refused by the engine"))
"""Outcomes of an attempt that gave the client its answer."""

BROKEN = "broke off"
"""How the outcome of an attempt begins that gave a part of its answer."""

MOVED = "moved"
"""How that of an attempt begins that was left for a faster engine."""

Clock = Callable[[], float]


def outcome_of(outcome: str | None) -> str:
    """Return how an attempt ended, in one word; the log has the engine's words."""
    if outcome is None:
        return "cancelled"
    if outcome in ANSWERED:
        return "answered"
    if outcome.startswith(MOVED):
        return "moved"
    return "broken" if outcome.startswith(BROKEN) else "failed"


class AttemptRecord(msgspec.Struct):
    """One attempt at one engine. `outcome` is None while it runs.

    `resumes`: it goes on with an answer that broke off elsewhere. `timings`: the tokens
    it took, as far as the engine told them.
    """

    send: Send
    started: float
    resumes: bool = False
    timings: Timings | None = None
    outcome: str | None = None
    ended: float | None = None

    @property
    def cancelled(self) -> bool:
        """Whether it ended without an outcome: the client left, for one."""
        return self.ended is not None and self.outcome is None


@dataclass
class SlotWait:
    """A wait for a slot: adds to a record once, when it ends or its block does."""

    record: RequestRecord
    clock: Clock
    began: float | None = None

    def __enter__(self) -> Self:
        """Begin to wait."""
        self.began = self.clock()
        return self

    def end(self) -> None:
        """Wait no longer."""
        if self.began is not None:
            self.record.waited += self.clock() - self.began
            self.began = None

    def __exit__(self, *_: object) -> None:
        """End it, where no slot was granted."""
        self.end()


class TokensUsed(msgspec.Struct, frozen=True):
    """What a request has used: tokens of a model; `cached` are those of `prompt`."""

    model: str
    prompt: int = 0
    cached: int = 0
    answer: int = 0


class RequestRecord(msgspec.Struct):
    """One request from arrival to end; times are of `RequestLog.clock`, in seconds.

    `client` is the name of its key, `owner` the key's id. `model` is what it names; if
    that is a route, `routed` has the model that answers.
    """

    id: str
    path: str
    model: str
    client: str
    arrived: float
    arrived_at: float
    status: int | None = None
    outcome: str | None = None
    stream: bool = False
    waited: float = 0.0
    first_byte: float | None = None
    ended: float | None = None
    decision: Decision | None = None
    attempts: list[AttemptRecord] = []
    owner: str = ""
    routed: Routed | None = None

    @property
    def answered(self) -> bool:
        """Whether the client has got its answer."""
        return bool(self.attempts) and self.attempts[-1].outcome in ANSWERED

    @property
    def state(self) -> str:
        """Whether the request is waiting, running or done."""
        if self.ended is not None:
            return "done"
        return "waiting" if isinstance(self.decision, Wait) else "running"

    @property
    def used(self) -> TokensUsed | None:
        """What its answer took, None where no engine was asked.

        An answer of several engines has the prompt of the first; an answer that was
        begun anew elsewhere counts once.
        """
        if not self.attempts:
            return None
        prompt = cached = answer = 0
        for attempt in self.attempts:
            found = attempt.timings
            if not attempt.resumes:
                prompt = cached = answer = 0
            if found is None:
                continue
            if not prompt:
                prompt, cached = found.cached + found.prompt, found.cached
            answer += found.predicted
        model = self.attempts[-1].send.to.engine.variant.partition(":")[0]
        return TokensUsed(model, prompt, cached, answer)

    def shown(self, *, fully: bool) -> dict[str, Any]:
        """Render for /edgeserve/v1/requests; `fully` with every candidate."""
        first = self.first_byte
        return {
            "id": self.id,
            "path": self.path,
            "model": self.model,
            "route": self.routed and self.routed.shown(),
            "client": self.client,
            "arrived_at": self.arrived_at,
            "state": self.state,
            "status": self.status,
            "outcome": self.outcome,
            "stream": self.stream,
            "waited_seconds": round(self.waited, 6),
            "first_byte_seconds": first and round(first - self.arrived, 6),
            "seconds": self.ended and round(self.ended - self.arrived, 6),
            "attempts": [_attempt(each, fully=fully) for each in self.attempts],
        } | ({"candidates": self._candidates()} if fully else {})

    def _candidates(self) -> list[dict[str, Any]]:
        """Render the candidates of the latest decision."""
        return _rendered((self.decision or Wait(())).verdicts)


def _attempt(attempt: AttemptRecord, *, fully: bool) -> dict[str, Any]:
    send, ended = attempt.send, attempt.ended
    return {
        "node": send.to.node,
        "engine": send.to.engine.id,
        "variant": send.to.engine.variant,
        "resumes": attempt.resumes,
        "outcome": outcome_of(None) if attempt.cancelled else attempt.outcome,
        "seconds": ended and round(ended - attempt.started, 6),
        **send.shown(),
    } | ({"candidates": _rendered(send.verdicts)} if fully else {})


def _rendered(verdicts: Verdicts) -> list[dict[str, Any]]:
    """Render the candidates, the cheapest first; of very many, those that came near."""
    return list(map(shown, islice(verdicts, MOST_SHOWN)))


class RequestLog:
    """A ring buffer of records, found by id."""

    def __init__(self, clock: Clock = time.monotonic, kept: int = KEPT) -> None:
        self.clock = clock
        self._kept = kept
        self._records: OrderedDict[str, RequestRecord] = OrderedDict()

    def open(
        self, id_: str, path: str, client: str = "", owner: str = ""
    ) -> RequestRecord:
        """Begin a record; the oldest one makes room."""
        record = RequestRecord(
            id=id_,
            path=path,
            model="",
            client=client,
            arrived=self.clock(),
            arrived_at=time.time(),
            owner=owner,
        )
        self._records.pop(id_, None)
        self._records[id_] = record
        if len(self._records) > self._kept:
            self._records.popitem(last=False)
        return record

    def get(self, id_: str) -> RequestRecord | None:
        """Return the record with that id, if it is kept."""
        return self._records.get(id_)

    def __iter__(self) -> Iterator[RequestRecord]:
        """Iterate over the records, latest first."""
        return reversed(self._records.values())
