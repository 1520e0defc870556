"""The waiting room: who waits for a slot, and who holds one.

Requests are bound late: one that waits belongs to no engine. The policy decides who
goes where whenever something changes, and counts a slot in the same breath in which it
grants it, so that no two requests ever get the same one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from balancer.schedule import Decision, Need, Refuse, Send, Wait
from edgeserve.errors import FleetBusy, TooLate

Note = Callable[[Decision], None]

RETRY_AFTER = 2
"""Seconds, as long as nothing better is predicted."""

LEFT = (asyncio.CancelledError, ConnectionError)
"""What ends the block when the client has gone, and nobody has told the engine yet."""

LEFT_SECONDS = 2.0
"""After so long without news, the node's last word counts of a slot that was left."""

LOOK_AGAIN_SECONDS = 0.5
"""Predictions go wrong by themselves: who waits is asked again as time passes."""


class Ticket:
    """One request at the door; `granted` exists once it has to wait."""

    __slots__ = ("decision", "granted", "need", "note")

    def __init__(self, need: Need, note: Note) -> None:
        self.need = need
        self.note = note
        self.decision: Send | Refuse | None = None
        self.granted: asyncio.Future[None] | None = None

    def settle(self, decision: Send | Refuse) -> None:
        """Tell it what became of it."""
        self.decision = decision
        self.note(decision)
        if self.granted is not None and not self.granted.done():
            self.granted.set_result(None)


class Policy(Protocol):
    """Who goes where. Slots that it grants are taken until they are given back."""

    def enter(self, ticket: Ticket) -> Wait | None:
        """Take one in: settled now, or kept and told why it waits."""
        ...

    def leave(self, ticket: Ticket) -> None:
        """One that waits has gone."""
        ...

    def look(self) -> None:
        """Settle whom something can be done for."""
        ...

    def give_back(self, send: Send, *, left: bool = False) -> None:
        """Its slots are free, or will be once the engine has noticed who `left`."""
        ...

    def settle(self, send: Send) -> None:
        """Whoever left it has been noticed by now, unless its node says otherwise."""
        ...

    def patience(self, ticket: Ticket) -> int:
        """Seconds after which one that finds no room to wait may try again."""
        ...


class WaitingRoom:
    """Bounded. `limit` is in requests, `seconds` per wait."""

    def __init__(self, policy: Policy, *, limit: int, seconds: float) -> None:
        self._policy = policy
        self._limit = limit
        self._seconds = seconds
        self._tickets: dict[Ticket, None] = {}
        self._ticking: asyncio.TimerHandle | None = None
        self._soon = False
        self.on_wait: Callable[[], None] = lambda: None
        """Called when a request has to wait."""

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._tickets)

    def claim(self, need: Need, note: Note) -> Claim:
        """Hold slots on one engine for the length of a block, waiting if need be.

        `note` sees each decision. Entering raises the refusal's error; FleetBusy where
        there is no room to wait or where waiting would be in vain; TooLate after too
        long a wait.
        """
        return Claim(self, Ticket(need, note))

    def changed(self) -> None:
        """Look again who can be served: the fleet changed or a slot came free."""
        if self._tickets:
            self._policy.look()

    def moved(self) -> None:
        """Look again soon: something is known better than before."""
        if self._tickets and not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._look_soon)

    def _look_soon(self) -> None:
        self._soon = False
        self.changed()

    async def admitted(self, ticket: Ticket) -> Send:
        """Take slots for a request; `give_back` must follow. See `claim`."""
        wait = self._policy.enter(ticket)
        if ticket.decision is None:
            if wait is not None:
                ticket.note(wait)
            await self._waited(ticket)
        match ticket.decision:
            case Send() as send:
                return send
            case Refuse(error):
                raise error
            case None:
                raise AssertionError("woken without a decision")

    async def _waited(self, ticket: Ticket) -> None:
        # One that was in already, and that an engine has failed, finds room again.
        if len(self._tickets) >= self._limit and not ticket.need.tried:
            patience = self._policy.patience(ticket)
            self._policy.leave(ticket)
            raise FleetBusy(patience, "every slot is busy and the queue is full")
        ticket.granted = asyncio.get_running_loop().create_future()
        self._tickets[ticket] = None
        self._tick()
        self.on_wait()
        try:
            async with asyncio.timeout(self._seconds):
                await ticket.granted
        except TimeoutError as error:
            self._left(ticket)
            raise TooLate(f"no slot came free in {self._seconds:g} s") from error
        except asyncio.CancelledError:
            self._left(ticket)
            raise
        finally:
            ticket.granted = None  # else it would hold what it raised, and be held
            del self._tickets[ticket]

    def _left(self, ticket: Ticket) -> None:
        """Forget one; give back what it was granted in the moment in which it left."""
        if isinstance(ticket.decision, Send):
            self.give_back(ticket.decision)
        elif ticket.decision is None:
            self._policy.leave(ticket)

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
        """Look again while somebody waits, whatever else happens."""
        if self._ticking is None:
            loop = asyncio.get_running_loop()
            self._ticking = loop.call_later(LOOK_AGAIN_SECONDS, self._ticked)

    def _ticked(self) -> None:
        self._ticking = None
        self.changed()
        if self._tickets:
            self._tick()


class Claim:
    """Slots on one engine, held by `async with`."""

    __slots__ = ("_room", "_send", "_ticket")

    def __init__(self, room: WaitingRoom, ticket: Ticket) -> None:
        self._room = room
        self._ticket = ticket
        self._send: Send | None = None

    async def __aenter__(self) -> Send:
        """Take them; see `WaitingRoom.claim`."""
        self._send = await self._room.admitted(self._ticket)
        return self._send

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give them back."""
        if self._send is not None:
            left = kind is not None and issubclass(kind, LEFT)
            self._room.give_back(self._send, left=left)
