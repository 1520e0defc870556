"""The fleet as it is now; whoever depends on it is told when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from balancer.candidates import Candidate, candidates
from balancer.changes import Changes
from balancer.fleet import Fleet
from balancer.news import news

Say = Callable[[str], None]
Judge = Callable[[Sequence[Candidate]], tuple[Candidate, ...]]


class Current:
    """Holds the latest `Fleet`. `say` hears of nodes that come and go.

    `judge` adds to the candidates what else is known of them.
    """

    def __init__(self, say: Say, judge: Judge = tuple) -> None:
        self._say = say
        self._judge = judge
        self._changes = Changes()
        self._waiting: list[asyncio.Future[None]] = []
        self.fleet = Fleet()
        self.candidates: tuple[Candidate, ...] = ()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change, from the event loop."""
        self._changes.subscribe(listener)

    async def changed(self) -> None:
        """Wait for the next change."""
        change = asyncio.get_running_loop().create_future()
        self._waiting.append(change)
        await change

    def become(self, fleet: Fleet) -> None:
        """Replace the fleet; no change, no noise."""
        if fleet is self.fleet:
            return
        before, self.fleet = self.fleet, fleet
        for line in news(before, fleet):
            self._say(line)
        self.judge()

    def judge(self) -> None:
        """Look at the candidates again: something is known of them."""
        self.candidates = self._judge(candidates(self.fleet))
        self._changes.notify()
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():
                change.set_result(None)
