"""Request queue: requests wait for a slot on an engine, up to a limit and a time.

A waiting request belongs to no engine. Whenever something changes, the policy decides
which request goes to which engine. It counts a slot as taken at the moment in which it
grants it, so that no two requests get the same one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from math import inf

from msgspec import structs

from balancer.fleet.changes import Changes
from balancer.routing.decision import (
    Refuse,
    RoutingRequest,
    Send,
    Verdict,
    Verdicts,
    Wait,
)
from balancer.routing.queued_request import (
    Note,
    QueuedRequest,
    RoutingPolicy,
    ignore,
)
from edgeserve.errors import EdgeserveError, FleetBusy, TooLate

Clock = Callable[[], float]

LEFT = (asyncio.CancelledError, ConnectionError)
"""What ends the block when the client has left and the engine works on."""

LEFT_SECONDS = 2.0
"""So long after its client left, the node's last report decides about a slot."""

RECONSIDER_SECONDS = 0.5
"""Predictions age, so waiting requests are reconsidered as time passes."""

RELENT_SECONDS = 5.0
"""After so long a request may go back to engines that failed it before they restarted,
or that it left: others would have been better, but are busy."""

LONG_SECONDS = 0.005
"""A look at many requests that takes more of the processor, as with hundreds of
engines, is followed by a rest as long: answers and connections get their share."""


class RequestQueue:
    """The queue: at most `limit` requests, each for at most `seconds`.

    `spent` tells how much processor time this thread has used.
    """

    def __init__(
        self,
        policy: RoutingPolicy,
        *,
        limit: int,
        seconds: float,
        clock: Clock = time.monotonic,
        spent: Clock = time.thread_time,
    ) -> None:
        self._policy = policy
        self._limit = limit
        self._seconds = seconds
        self._clock, self._spent = clock, spent
        self._waiting: dict[QueuedRequest, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._scheduled = False
        self._rests_until = -inf
        self._rest: asyncio.TimerHandle | None = None
        self.grows = Changes()
        """Notified when a request has to wait."""

    @property
    def waiting(self) -> int:
        """How many requests wait now."""
        return len(self._waiting)

    @property
    def requests(self) -> Collection[QueuedRequest]:
        """The requests that wait, to be read, in the order in which they came."""
        return self._waiting.keys()

    def ahead(self, model: str) -> int:
        """How many requests wait for a model, by its name in the fleet."""
        return sum(each.model == model for each in self._waiting)

    def claim(self, routing: RoutingRequest, note: Note) -> SlotClaim:
        """Hold slots on one engine for the length of a block; wait if necessary.

        `note` gets each decision. Entering raises the error of a refusal: FleetBusy
        where the queue is full or waiting is useless; TooLate after too long a wait.
        """
        return SlotClaim(routing, note, self._clock(), queue=self)

    def changed(self) -> None:
        """Reconsider the queue: the fleet changed or a slot came free.

        That is now, or after the rest that follows a long look.
        """
        if self._waiting:
            self._look(self._clock())

    def moved(self) -> None:
        """Reconsider the queue soon: a prediction has become more exact."""
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._reconsider)

    def _reconsider(self) -> None:
        self._scheduled = False
        self.changed()

    def _look(self, now: float) -> None:
        if now >= self._rests_until:
            self._assign(now)
        elif self._rest is None:
            loop = asyncio.get_running_loop()
            self._rest = loop.call_later(self._rests_until - now, self._on_rested)

    def _on_rested(self) -> None:
        self._rest = None
        if self._waiting:
            self._assign(self._clock())

    def _assign(self, now: float) -> None:
        before = self._spent() if len(self._waiting) > 1 else inf
        for request, decision in self._policy.assign(self._waiting, now):
            del self._waiting[request]
            request.settle(decision)
        # Processor time: with other programs at work a look takes longer, not more.
        if before < inf and (took := self._spent() - before) > LONG_SECONDS:
            self._rests_until = self._clock() + took

    async def admitted(self, request: QueuedRequest) -> Send:
        """Wait for slots and take them; `give_back` must follow. See `claim`."""
        now = request.arrived
        # A request that an engine has failed was admitted before: it gets in again.
        full = len(self._waiting) >= self._limit and not request.again
        if refusal := self._policy.refusal(request, now, full=full):
            request.settle(refusal)
        else:
            self._waiting[request] = None
            if full:  # it has to be served now or never
                self._assign(now)
            else:
                self._look(now)
        if request.decision is None:
            if full:
                self._refuse(request, now)
            else:
                await self._waited(request)
        match request.decision:
            case Send() as send:
                return send
            case Refuse(error):
                raise error
            case None:
                raise AssertionError("woken without a decision")

    def _refuse(self, request: QueuedRequest, now: float) -> None:
        """Refuse a request that finds neither a slot nor a place in the queue."""
        why = "every slot is busy and the queue is full"
        busy = FleetBusy(self._policy.patience(request, now), why)
        verdicts = tuple(self._policy.explain(request, now))
        self._drop(request)
        request.settle(Refuse(busy, verdicts))

    async def _waited(self, request: QueuedRequest) -> None:
        granted = asyncio.get_running_loop().create_future()
        request.wake = partial(_grant, granted)
        request.note(Wait(_Live(self._explained, request)))
        self._start_timer()
        self.grows.notify()
        try:
            async with asyncio.timeout(self._seconds):
                await granted
        except TimeoutError as error:
            self._left(request)
            raise TooLate(f"no slot came free in {self._seconds:g} s") from error
        except asyncio.CancelledError:
            self._left(request)
            raise
        finally:
            request.wake = None  # breaks a reference cycle with the exception

    def _explained(self, request: QueuedRequest) -> Iterable[Verdict]:
        return self._policy.explain(request, self._clock())

    def _left(self, request: QueuedRequest) -> None:
        """Drop a request that left; give back slots that were granted meanwhile."""
        if isinstance(request.decision, Send):
            self.give_back(request.decision)
        elif request.decision is None:
            # Keep why it waited, for the request log.
            request.note(Wait(tuple(self._explained(request))))
            self._drop(request)
        request.decision, request.note = None, ignore

    def _drop(self, request: QueuedRequest) -> None:
        del self._waiting[request]
        self._policy.forget(request)

    def refuse(self, request: QueuedRequest, error: EdgeserveError) -> None:
        """Refuse a request that waits; does nothing if it waits no longer."""
        if request in self._waiting:
            verdicts = tuple(self._explained(request))
            self._drop(request)
            request.settle(Refuse(error, verdicts))

    def give_back(self, send: Send, *, left: bool = False) -> None:
        """Free what `admitted` took; later, where its client `left`."""
        self._policy.give_back(send, left=left)
        self.changed()
        if left:
            loop = asyncio.get_running_loop()
            loop.call_later(LEFT_SECONDS, self._settle, send)

    def _settle(self, send: Send) -> None:
        self._policy.settle(send)
        self.changed()

    def _start_timer(self) -> None:
        """Reconsider the queue at intervals while requests wait."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(RECONSIDER_SECONDS, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._waiting:
            self._start_timer()  # first: a look that fails must not be the last
            self._relent(self._clock())
            self.changed()

    def _relent(self, now: float) -> None:
        """Let requests that have waited long go back to engines that they avoid."""
        for request in self._waiting:
            routing = request.routing
            if not (routing.tried or routing.left) or routing.relents:
                continue
            if now - request.arrived >= RELENT_SECONDS:
                request.routing = structs.replace(routing, relents=True)
                self._policy.recheck()


def _grant(granted: asyncio.Future[None]) -> None:
    if not granted.done():
        granted.set_result(None)


class _Live:
    """Verdicts on a waiting request, computed when they are read."""

    __slots__ = ("_explain", "_request")

    def __init__(
        self, explain: Callable[[QueuedRequest], Verdicts], request: QueuedRequest
    ) -> None:
        self._explain = explain
        self._request = request

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self._explain(self._request))


class SlotClaim(QueuedRequest, eq=False, kw_only=True):
    """A request that waits when it is entered, and holds slots until it is left.

    `abandons`: the engine still works on it when the block ends.
    """

    queue: RequestQueue
    abandons: bool = False

    async def __aenter__(self) -> Send:
        """Take them; see `RequestQueue.claim`."""
        return await self.queue.admitted(self)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give them back."""
        send = self.decision
        if isinstance(send, Send):
            left = kind is not None and issubclass(kind, LEFT)
            self.queue.give_back(send, left=left or self.abandons)
        self.decision = None  # it holds this
