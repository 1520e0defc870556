"""Turns: which of several balancers takes the next free slot of an engine. Pure.

A balancer whose request ends has the slot at once, before another can hear of it. So,
without turns, the one that came first would keep all slots as long as it has requests.
Each says how many of its requests wait. A free slot goes to the balancer that waits and
has fewest slots; of equals, to the one that took its last slot longest ago.
"""

from __future__ import annotations

from dataclasses import dataclass

WAITING_SECONDS = 2.5
"""So long what a balancer says counts; it says it again several times meanwhile."""

KEPT_SECONDS = 0.5
"""A free slot is kept so long for a balancer that is to hear of it."""

DOUBTED_SECONDS = 5.0
"""What a balancer says does not count so long, after it let a slot pass that was kept:
its requests may wait for a better engine."""

MOST_BALANCERS = 64


@dataclass(slots=True)
class Balancer:
    """What is known of one: the slots it has, its last turn, and what it waits for."""

    held: int = 0
    turn: int = 0
    waiting: int = 0
    until: float = 0.0
    doubted: float = 0.0
    kept: float | None = None


class Turns:
    """The balancers that use one engine. "" is any client that is no balancer."""

    def __init__(self) -> None:
        self._balancers: dict[str, Balancer] = {}
        self._turn = 0
        self._waits = False

    def __len__(self) -> int:
        """Count the balancers that are remembered."""
        return len(self._balancers)

    def waits(self, by: str, requests: int, now: float) -> None:
        """Take in how many requests of a balancer wait for this engine."""
        balancer = self._balancers.get(by)
        if balancer is None:
            if not requests:
                return
            self._make_room()
            balancer = self._balancers[by] = Balancer()
        if not requests or now >= balancer.until:
            balancer.kept = None  # while it does not wait, none is kept
        balancer.waiting, balancer.until = requests, now + WAITING_SECONDS
        self._waits = self._waits or requests > 0

    def allow(self, by: str, free: int, now: float) -> bool:
        """Whether a balancer may take one of so many free slots."""
        if not self._waits:
            return True
        own = self._balancers.get(by) or Balancer()
        line = [each for each in self._rivals(by, now) if not _passed(each, now)]
        if not line:
            return True
        given = dict.fromkeys(range(len(line)), 0)
        for _ in range(free):
            wanting = [at for at in given if given[at] < line[at].waiting]
            ahead = min(
                wanting,
                key=lambda at: (line[at].held + given[at], line[at].turn),
                default=None,
            )
            if ahead is None or (own.held, own.turn) <= (
                line[ahead].held + given[ahead],
                line[ahead].turn,
            ):
                return True
            given[ahead] += 1
        for at, slots in given.items():
            if slots and line[at].kept is None:
                line[at].kept = now
        return False

    def take(self, by: str) -> None:
        """Note that a balancer has taken a slot."""
        balancer = self._balancers.get(by)
        if balancer is None:
            self._make_room()
            balancer = self._balancers[by] = Balancer()
        self._turn += 1
        balancer.held, balancer.turn = balancer.held + 1, self._turn
        balancer.waiting, balancer.kept = max(0, balancer.waiting - 1), None

    def all_taken(self) -> None:
        """Note that no slot is free, and so that none is kept."""
        if self._waits:
            for each in self._balancers.values():
                each.kept = None

    def give_back(self, by: str) -> None:
        """Note that it has one less."""
        self._balancers[by].held -= 1

    def _rivals(self, by: str, now: float) -> list[Balancer]:
        """List the others that wait; note where there are none any longer."""
        waiting = {
            name: each
            for name, each in self._balancers.items()
            if each.waiting and now < each.until
        }
        self._waits = bool(waiting)
        return [
            each for name, each in waiting.items() if name != by and now >= each.doubted
        ]

    def _make_room(self) -> None:
        """Forget those that have nothing here, if there are many: they have new ids."""
        if len(self._balancers) >= MOST_BALANCERS:
            self._balancers = {
                name: each for name, each in self._balancers.items() if each.held
            }


def _passed(balancer: Balancer, now: float) -> bool:
    """Whether it let the slot pass that was kept; then it is doubted for a while."""
    if balancer.kept is None or now - balancer.kept < KEPT_SECONDS:
        return False
    balancer.kept, balancer.doubted = None, now + DOUBTED_SECONDS
    return True
