"""Connection admission: which connections a port accepts, and which it closes. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Generic, Protocol, TypeVar

from edgeserve.errors import FleetBusy, NoRoom
from edgeserve.runtime.clock import NEVER


class CountedConnection(Protocol):
    """One connection, as admission counts it."""

    peer: str
    heard: bool
    """Whether any byte has come from it."""

    @property
    def idle_until(self) -> float:
        """When it is closed if no request comes; NEVER from the end of a head on."""
        ...


class TooMany(Exception):
    """The connection is to be closed without an answer."""


V = TypeVar("V", bound=CountedConnection)


class ConnectionCounts(Generic[V]):
    """Counts connections, of each address and in all.

    Some refused connections get an answer and the time to read it; further ones are
    closed at once.
    """

    def __init__(self, most: int, per_address: int) -> None:
        self._most = most
        self._most_refused = max(1, most // 8)
        self._per_address = per_address
        self._here: dict[V, None] = {}  # in order of arrival
        self._refused: set[V] = set()
        self._addresses: Counter[str] = Counter()

    def __len__(self) -> int:
        """Count the accepted connections."""
        return len(self._here)

    def enter(self, connection: V) -> V | None:
        """Count a connection; return the idle one to close for it, if one must go.

        Raises FleetBusy where its address has too many, NoRoom where no other is idle,
        TooMany where enough refused ones are being answered.
        """
        self._addresses[connection.peer] += 1
        idle = None
        if self._addresses[connection.peer] > self._per_address:
            why = f"{connection.peer} has too many connections open"
            raise self._refusing(connection, FleetBusy(1, why))
        if len(self._here) >= self._most and (idle := self._longest_idle()) is None:
            why = "too many connections are open; come back soon"
            raise self._refusing(connection, NoRoom(why))
        self._here[connection] = None
        return idle

    def leave(self, connection: V) -> None:
        """Stop counting a connection; does nothing the second time."""
        if connection in self._here:
            del self._here[connection]
        elif connection in self._refused:
            self._refused.discard(connection)
        else:
            return
        self._addresses[connection.peer] -= 1
        if not self._addresses[connection.peer]:
            del self._addresses[connection.peer]

    def _refusing(self, connection: V, error: Exception) -> Exception:
        enough = len(self._refused) >= self._most_refused
        self._refused.add(connection)
        return TooMany() if enough else error

    def _longest_idle(self) -> V | None:
        """Find one that has sent nothing yet, else the one that is idle longest."""
        for each in self._here:
            if not each.heard:
                return each
        resting = [each for each in self._here if each.idle_until < NEVER]
        return min(resting, key=lambda each: each.idle_until, default=None)
