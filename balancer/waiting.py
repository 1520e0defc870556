"""The waiting room: who waits for a slot, and who holds one.

Requests are bound late: one that waits belongs to no engine. Decisions are taken in
order of arrival whenever something changes, and a slot is counted in the same breath in
which it is granted, so that no two requests ever get the same one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from balancer.candidates import EngineKey
from balancer.ledger import Ledger
from balancer.schedule import Decision, Need, Refuse, Send, Wait
from edgeserve.errors import FleetBusy, TooLate

Decide = Callable[[Need, Callable[[EngineKey], int]], Decision]
Note = Callable[[Decision], None]

RETRY_AFTER = 2
"""Seconds, as long as nothing better is predicted."""


@dataclass(eq=False)
class _Ticket:
    """One request that waits."""

    need: Need
    note: Note
    granted: asyncio.Future[Send] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class WaitingRoom:
    """Bounded, first come first served. `limit` is in requests, `seconds` per wait."""

    def __init__(
        self, decide: Decide, ledger: Ledger, *, limit: int, seconds: float
    ) -> None:
        self._decide = decide
        self._ledger = ledger
        self._limit = limit
        self._seconds = seconds
        self._tickets: dict[_Ticket, None] = {}

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._tickets)

    @asynccontextmanager
    async def claim(self, need: Need, note: Note) -> AsyncGenerator[Send]:
        """Hold slots on one engine for the length of the block, waiting if need be.

        `note` sees each decision. Raises the refusal's error; FleetBusy where there is
        no room to wait; TooLate after too long a wait.
        """
        send = await self._admitted(need, note)
        try:
            yield send
        finally:
            self._give_back(send)

    def changed(self) -> None:
        """Look again who can be served: the fleet changed or a slot came free."""
        hopeless = set[Need]()
        for ticket in list(self._tickets):
            if ticket.need in hopeless or ticket.granted.done():
                continue
            match self._decided(ticket.need, ticket.note):
                case Send() as send:
                    self._ledger.take(send.to.key, send.slots)
                    ticket.granted.set_result(send)
                case Refuse(error):
                    ticket.granted.set_exception(error)
                case Wait():
                    hopeless.add(ticket.need)

    async def _admitted(self, need: Need, note: Note) -> Send:
        match self._decided(need, note):
            case Send() as send:
                self._ledger.take(send.to.key, send.slots)
                return send
            case Refuse(error):
                raise error
            case Wait():
                return await self._waited(_Ticket(need, note))

    async def _waited(self, ticket: _Ticket) -> Send:
        if len(self._tickets) >= self._limit:
            raise FleetBusy(RETRY_AFTER, "every slot is busy and the queue is full")
        self._tickets[ticket] = None
        try:
            async with asyncio.timeout(self._seconds):
                return await ticket.granted
        except TimeoutError as error:
            self._return(ticket)
            raise TooLate(f"no slot came free in {self._seconds:g} s") from error
        except asyncio.CancelledError:
            self._return(ticket)
            raise
        finally:
            del self._tickets[ticket]

    def _return(self, ticket: _Ticket) -> None:
        """Give back what was granted in the very moment in which its owner left."""
        granted = ticket.granted
        if granted.done() and not granted.cancelled() and not granted.exception():
            self._give_back(granted.result())

    def _decided(self, need: Need, note: Note) -> Decision:
        decision = self._decide(need, self._ledger.busy)
        note(decision)
        return decision

    def _give_back(self, send: Send) -> None:
        self._ledger.give_back(send.to.key, send.slots)
        self.changed()
