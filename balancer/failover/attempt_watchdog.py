"""Attempt watchdog: notice that one attempt makes no progress, and give it up.

A hung decode leaves `/health` at 200 and the connection open; only what does not come
tells. Nothing is timed per event: now and then somebody looks whether there was one.
While a client takes nothing of its answer, nothing is read from the engine either: then
its silence is ours, and `stall_seconds` alone says how long that may last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from balancer.failover.stall import ExpectedPace, Progress, Sign, is_sooner, may_be_late
from balancer.fleet.engines import EngineKey
from balancer.health.faults import Fault
from balancer.routing.decision import RoutingRequest

UNLEARNED = ExpectedPace()

QUIET_SECONDS = 5.0
"""After so long without a sign from an engine a probe looks after it; and after so long
without one from its node either, the request is asked elsewhere."""

BLINK_SECONDS = 2.0
"""An event stream that breaks is back before that, if its node is."""

LATELY_SECONDS = 5.0
"""A connection that breaks so soon after we had let it wait was dropped for that."""


def never() -> bool:
    """Stand for a client that reads."""
    return False


class Prospects(Protocol):
    """What can be known of where a request runs, and of where else it could."""

    def time(self) -> float:
        """Seconds by a clock that stands still while this process does."""
        ...

    def pace(self, key: EngineKey) -> ExpectedPace:
        """Return what is learned of an engine."""
        ...

    def trusted(self, key: EngineKey) -> bool:
        """Whether users' requests go there."""
        ...

    def elsewhere(self, need: RoutingRequest, key: EngineKey) -> float | None:
        """Seconds to the first token on the best other engine with an idle slot."""
        ...

    def deserted(self, need: RoutingRequest, key: EngineKey) -> bool:
        """Whether an engine's whole node is silent, and another could serve."""
        ...

    def stirred(self, key: EngineKey) -> float:
        """When an engine last showed work; `inf` where not all of it would show."""
        ...

    def stuck(self, key: EngineKey) -> bool:
        """Whether its node has given an engine up."""
        ...

    def doubt(self, key: EngineKey) -> None:
        """Have an engine probed."""
        ...

    @property
    def budget_left(self) -> int:
        """How many requests may be asked again now."""
        ...

    @property
    def woke(self) -> bool:
        """Whether this process, or its whole machine, stood still a moment ago."""
        ...


@dataclass(slots=True, eq=False)
class AttemptWatchdog:
    """One request at one engine, and why it was given up, if it was.

    `predicted`: seconds to its first token, None where nothing is. `tells`: that engine
    says when it begins. `halting`: its text may come in large pieces. `paused`: whether
    its client takes nothing now. `struck`: an engine has died at it before. `texts`
    counts what came of the answer's text.
    """

    prospects: Prospects
    key: EngineKey
    need: RoutingRequest
    started: float
    predicted: float | None
    tells: bool
    halting: bool = False
    paused: Callable[[], bool] = never
    struck: bool = False
    progress: Progress = Progress()
    texts: int = 0
    why: str = ""
    fault: Fault = "none"
    _seen: int = 0
    _doubted: bool = False
    _deserted: float | None = None
    _paused_at: float = -inf
    _trusted: bool = field(init=False)
    _task: asyncio.Task[object] | None = field(init=False)

    def __post_init__(self) -> None:
        self._trusted = self.prospects.trusted(self.key)
        self._task = asyncio.current_task()

    @property
    def speaks(self) -> bool:
        """Whether its engine has begun to answer."""
        return self.texts > 0 or self.progress.phase == "writing"

    def heard(self, sign: Sign) -> None:
        """Take in a sign of life."""
        self.progress = self.progress.heard(sign, self.prospects.time())

    @property
    def excused(self) -> bool:
        """Whether its connection may have broken because we, or our client, rested."""
        lately = self.prospects.time() - self._paused_at < LATELY_SECONDS
        return lately or self.paused() or self.prospects.woke

    @property
    def hidden(self) -> bool:
        """Whether its engine may be at work on it without a sign."""
        if self.paused():
            return True
        tells = self.tells and not self.need.media
        return self.progress.phase != "writing" and not tells

    def tick(self, now: float) -> None:
        """Look what has come, and give up what will not."""
        if self.why:
            return
        if self.texts != self._seen:
            self._seen = self.texts
            self.progress = self.progress.heard("text", now)
        if self.prospects.stuck(self.key):
            self._give_up("its node has given it up", "engine")
        elif self.paused():
            self._paused_at = now
            self.progress = self.progress.excused(now)
        elif self._is_deserted(now):
            self._give_up("its node is silent", "none")
        elif self.progress.phase == "queued":
            self._look_for_better(now)
        elif self._is_stuck(now):
            self._give_up("it made no progress", "engine")

    def _is_stuck(self, now: float) -> bool:
        pace = self._pace
        if now >= self.progress.stuck_at(pace):
            return True
        hung_at = self.progress.hung_at(pace)
        if now < hung_at:
            return False
        quiet = hung_at - self.progress.work
        return now >= self.prospects.stirred(self.key) + quiet

    def _is_deserted(self, now: float) -> bool:
        """Nothing has come for a while, neither of the answer nor of the node."""
        quiet = now - max(self.started, self.progress.life)
        if quiet < QUIET_SECONDS or not self.prospects.deserted(self.need, self.key):
            self._deserted = None
            return False
        if self._deserted is None:
            self._deserted = now
        return now - self._deserted >= BLINK_SECONDS

    @property
    def _pace(self) -> ExpectedPace:
        """What to expect; of a call to a tool the first words may be long in coming."""
        return UNLEARNED if self.halting else self.prospects.pace(self.key)

    def _look_for_better(self, now: float) -> None:
        """Nothing shows that it has begun: what is asked elsewhere loses nothing."""
        if self._trusted and not self.prospects.trusted(self.key):
            self._give_up("its engine does not answer a probe", "none")
        elif self.tells and self._is_late(now):
            self._give_up("it did not begin in time", "doubt")
        elif not self._doubted and now - self.started > self._quiet:
            self._doubted = True
            self.prospects.doubt(self.key)

    @property
    def _quiet(self) -> float:
        """Seconds without a sign that are nothing unusual."""
        if self.tells:
            return QUIET_SECONDS
        return QUIET_SECONDS + 3 * (self.predicted or QUIET_SECONDS)

    def _is_late(self, now: float) -> bool:
        if self.predicted is None or not may_be_late(self.started, self.predicted, now):
            return False
        remaining = max(self.predicted, now - self.started)
        elsewhere = self.prospects.elsewhere(self.need, self.key)
        return self.prospects.budget_left > 0 and is_sooner(elsewhere, remaining)

    def _give_up(self, why: str, fault: Fault) -> None:
        self.why, self.fault = why, fault
        if self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        """Let go of the task, which holds what it raised, which holds this."""
        self._task = None

    def gave_up(self) -> bool:
        """Whether the cancellation under way is ours, and nobody else's."""
        task = asyncio.current_task()
        return bool(self.why) and task is not None and task.uncancel() == 0
