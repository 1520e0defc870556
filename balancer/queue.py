"""Request queue: requests wait for a slot on an engine, up to a limit and a time.

Requests are bound late: one that waits belongs to no engine. The policy decides which
request goes where whenever something changes, and counts a slot in the same breath in
which it grants it, so that no two requests ever get the same one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from balancer.fleet.changes import Changes
from balancer.routing.decision import (
    Refuse,
    RoutingRequest,
    Send,
    Verdict,
    Verdicts,
    Wait,
)
from balancer.routing.queued_request import Note, QueuedRequest, RoutingPolicy
from edgeserve.errors import FleetBusy, TooLate

Clock = Callable[[], float]

LEFT = (asyncio.CancelledError, ConnectionError)
"""What ends the block when the client has gone, and the engine is not told yet."""

LEFT_SECONDS = 2.0
"""After so long without news, the node's last report counts of a slot that was left."""

LOOK_AGAIN_SECONDS = 0.5
"""Predictions go wrong by themselves: what waits is looked at again as time passes."""


class RequestQueue:
    """Bounded. `limit` is in requests, `seconds` per wait."""

    def __init__(
        self,
        policy: RoutingPolicy,
        *,
        limit: int,
        seconds: float,
        clock: Clock = time.monotonic,
    ) -> None:
        self._policy = policy
        self._limit = limit
        self._seconds = seconds
        self._clock = clock
        self._waiting: dict[QueuedRequest, None] = {}
        self._ticking: asyncio.TimerHandle | None = None
        self._soon = False
        self.grows = Changes()
        """Notified when a request has to wait."""

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._waiting)

    def claim(self, need: RoutingRequest, note: Note) -> SlotClaim:
        """Hold slots on one engine for the length of a block, waiting if need be.

        `note` sees each decision. Entering raises the refusal's error; FleetBusy where
        there is no room to wait or where waiting would be in vain; TooLate after too
        long a wait.
        """
        return SlotClaim(self, QueuedRequest(need, note, self._clock()))

    def changed(self) -> None:
        """Look again which can be served: the fleet changed or a slot came free."""
        if self._waiting:
            self._assign(self._clock())

    def moved(self) -> None:
        """Look again soon: something is known better than before."""
        if self._waiting and not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._look_soon)

    def _look_soon(self) -> None:
        self._soon = False
        self.changed()

    def _assign(self, now: float) -> None:
        for request, decision in self._policy.assign(self._waiting, now):
            del self._waiting[request]
            request.settle(decision)

    async def admitted(self, request: QueuedRequest) -> Send:
        """Take slots for a request; `give_back` must follow. See `claim`."""
        now = request.arrived
        # One that was in already, and that an engine has failed, finds room again.
        full = len(self._waiting) >= self._limit and not request.again
        if refusal := self._policy.refusal(request, now, full=full):
            request.settle(refusal)
        else:
            self._waiting[request] = None
            self._assign(now)
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
        """Turn one away that finds neither a slot nor room to wait."""
        why = "every slot is busy and the queue is full"
        busy = FleetBusy(self._policy.patience(request, now), why)
        verdicts = tuple(self._policy.explain(request, now))
        self._drop(request)
        request.settle(Refuse(busy, verdicts))

    async def _waited(self, request: QueuedRequest) -> None:
        granted = asyncio.get_running_loop().create_future()
        request.wake = partial(_grant, granted)
        request.note(Wait(_Live(self._explained, request)))
        self._tick()
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
            request.wake = None  # else it would hold what it raised, and be held

    def _explained(self, request: QueuedRequest) -> Iterable[Verdict]:
        return self._policy.explain(request, self._clock())

    def _left(self, request: QueuedRequest) -> None:
        """Forget one; give back what it was granted in the moment in which it left."""
        if isinstance(request.decision, Send):
            self.give_back(request.decision)
        elif request.decision is None:
            # Why it waited stays to be seen.
            request.note(Wait(tuple(self._explained(request))))
            self._drop(request)

    def _drop(self, request: QueuedRequest) -> None:
        del self._waiting[request]
        self._policy.forget(request)

    def give_back(self, send: Send, *, left: bool = False) -> None:
        """Free what `admitted` took, or soon: its client may have `left`."""
        self._policy.give_back(send, left=left)
        self.changed()
        if left:
            loop = asyncio.get_running_loop()
            loop.call_later(LEFT_SECONDS, self._settle, send)

    def _settle(self, send: Send) -> None:
        self._policy.settle(send)
        self.changed()

    def _tick(self) -> None:
        """Look again while requests wait, whatever else happens."""
        if self._ticking is None:
            loop = asyncio.get_running_loop()
            self._ticking = loop.call_later(LOOK_AGAIN_SECONDS, self._ticked)

    def _ticked(self) -> None:
        self._ticking = None
        self.changed()
        if self._waiting:
            self._tick()


def _grant(granted: asyncio.Future[None]) -> None:
    if not granted.done():
        granted.set_result(None)


class _Live:
    """Verdicts about a request that waits, as things are when they are read."""

    __slots__ = ("_explain", "_request")

    def __init__(
        self, explain: Callable[[QueuedRequest], Verdicts], request: QueuedRequest
    ) -> None:
        self._explain = explain
        self._request = request

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self._explain(self._request))


class SlotClaim:
    """Slots on one engine, held by `async with`."""

    __slots__ = ("_queue", "_request")

    def __init__(self, queue: RequestQueue, request: QueuedRequest) -> None:
        self._queue = queue
        self._request = request

    async def __aenter__(self) -> Send:
        """Take them; see `RequestQueue.claim`."""
        return await self._queue.admitted(self._request)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give them back."""
        send = self._request.decision
        if isinstance(send, Send):
            left = kind is not None and issubclass(kind, LEFT)
            self._queue.give_back(send, left=left)
