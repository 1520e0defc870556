"""Connection admission: who is connected to a port, and who makes room. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Generic, Protocol, TypeVar

from edgeserve.errors import FleetBusy, NoRoom
from edgeserve.runtime.clock import NEVER


class Visitor(Protocol):
    """One connection, as it is counted."""

    peer: str
    heard: bool
    """Whether anything has come from it."""

    @property
    def idle_until(self) -> float:
        """When it is closed if nothing comes; NEVER from the end of a head on."""
        ...


class TooMany(Exception):
    """Not even a word is to be spent on this connection."""


V = TypeVar("V", bound=Visitor)


class Crowd(Generic[V]):
    """Counts connections, of each address and in all.

    Some that are refused are told why, and listened to until they have read it; any
    further one is cut off.
    """

    def __init__(self, most: int, per_address: int) -> None:
        self._most = most
        self._most_told = max(1, most // 8)
        self._per_address = per_address
        self._here: dict[V, None] = {}  # in order of arrival
        self._refused: set[V] = set()
        self._addresses: Counter[str] = Counter()

    def __len__(self) -> int:
        """Count those that were let in."""
        return len(self._here)

    def enter(self, visitor: V) -> V | None:
        """Count one; return who has to make room for it.

        Raises FleetBusy where its address has too many, NoRoom where all are of use to
        their clients, TooMany where enough others are being told so.
        """
        self._addresses[visitor.peer] += 1
        idle = None
        if self._addresses[visitor.peer] > self._per_address:
            why = f"{visitor.peer} has too many connections open"
            raise self._refusing(visitor, FleetBusy(1, why))
        if len(self._here) >= self._most and (idle := self._longest_idle()) is None:
            why = "too many connections are open; come back soon"
            raise self._refusing(visitor, NoRoom(why))
        self._here[visitor] = None
        return idle

    def leave(self, visitor: V) -> None:
        """Count it no longer; it may have been told to go before it went."""
        if visitor in self._here:
            del self._here[visitor]
        elif visitor in self._refused:
            self._refused.discard(visitor)
        else:
            return
        self._addresses[visitor.peer] -= 1
        if not self._addresses[visitor.peer]:
            del self._addresses[visitor.peer]

    def _refusing(self, visitor: V, error: Exception) -> Exception:
        enough = len(self._refused) >= self._most_told
        self._refused.add(visitor)
        return TooMany() if enough else error

    def _longest_idle(self) -> V | None:
        """Find one that has sent nothing yet, else one between two requests."""
        for each in self._here:
            if not each.heard:
                return each
        resting = [each for each in self._here if each.idle_until < NEVER]
        return min(resting, key=lambda each: each.idle_until, default=None)
