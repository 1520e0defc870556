"""Circuit: the breaker of one engine or one node, from its latest outcomes. Pure.

probation ──3 successes or 30 s──► ready ◄──success── suspect
    │ failure                        │ failure, doubt ──► │
    ▼                                ▼ 3 in a row, or 6 of the last 10
   open ──back-off──► half-open ──probe succeeds──► probation
    ▲───────probe fails───────┘

A probe is a tiny generation of our own, never a user's request. Only a probe closes an
open breaker: `/health` answers 200 on an engine whose every generation fails.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["probation", "ready", "suspect", "open", "half-open"]

IN_A_ROW = 3
WINDOW = 10
"""Outcomes remembered; failures in more than half of as many open the breaker."""

BACK_OFF_SECONDS = (1.0, 60.0)
"""Shortest and longest; doubles with each opening until health is proved."""

SLOW_START_SECONDS = 30.0
SLOW_START_SUCCESSES = 3

SUSPECT_SECONDS = 1.0
"""How soon a suspect is probed."""

PROBE_SECONDS = 60.0
"""A probe without a result for so long is sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """The outcomes of the latest requests there. Times are seconds of one clock.

    `since`: when the state began. `recent`: whether each of the latest outcomes was a
    failure, the newest last. `wins`: successes in probation. `opened`: how often the
    breaker opened since health was last proved. `probe_at`: when to probe, if at all.
    """

    state: State = "probation"
    since: float = 0.0
    recent: tuple[bool, ...] = ()
    wins: int = 0
    opened: int = 0
    probe_at: float | None = None

    @property
    def closed(self) -> bool:
        """Whether users' requests may go there."""
        return self.state not in ("open", "half-open")

    @property
    def trusted(self) -> bool:
        """Whether no recent outcome was a failure."""
        return self.state == "ready" and not any(self.recent)

    @property
    def proved(self) -> bool:
        """Whether its state need not be kept."""
        return self.trusted and self.probe_at is None

    @property
    def risk(self) -> float:
        """The share of failures to expect, 0 to 1, from the latest outcomes."""
        return sum(self.recent) / (len(self.recent) + 2)

    def succeeded(self, now: float) -> Circuit:
        """Count a user's request that was answered."""
        if not self.closed:
            return self
        after = replace(_noted(self, failed=False), probe_at=None)
        match after.state:
            case "ready":
                return after
            case "probation":
                return _settled(replace(after, wins=after.wins + 1), now)
            case _:
                return _ready(after, now)

    def failed(self, now: float, jitter: float) -> Circuit:
        """Count a failure of its own. `jitter` is random, 0 to 1."""
        if not self.closed:
            return self
        before = _settled(self, now)
        after = _noted(before, failed=True)
        if before.state == "probation" or _too_often(after.recent):
            return _opened(after, now, jitter)
        soon = now + SUSPECT_SECONDS
        return replace(after, state="suspect", since=now, probe_at=soon)

    def doubted(self, now: float) -> Circuit:
        """Note a failure that may be the request's own: a probe decides."""
        if not self.closed:
            return self
        before = _settled(self, now)
        if before.state == "ready":
            before = replace(before, state="suspect", since=now)
        return replace(before, probe_at=now)

    def questioned(self, now: float) -> Circuit:
        """Note an error that is most likely the request's own: a probe decides.

        A probe that is due already is enough.
        """
        if not self.closed or self.probe_at is not None:
            return self
        return replace(self, probe_at=now)

    def wants_probe(self, now: float) -> bool:
        """Whether to send a probe now."""
        return self.probe_at is not None and now >= self.probe_at

    def probing(self, now: float) -> Circuit:
        """Note that a probe was sent."""
        again = now + PROBE_SECONDS
        if self.state == "open":
            return replace(self, state="half-open", since=now, probe_at=again)
        return replace(self, probe_at=again)

    def probed(self, *, well: bool, now: float, jitter: float) -> Circuit:
        """Note the result of a probe."""
        match self.state, well:
            case "half-open", True:
                return Circuit(since=now, opened=self.opened)
            case "half-open", False:
                return _opened(self, now, jitter)
            case "open", _:
                return self
            case "suspect", True:
                return _ready(_noted(self, failed=False), now)
            case _, True:
                return replace(self, probe_at=None)
            case _:
                return self.failed(now, jitter)

    def usable(self, slots: int, now: float) -> int:
        """Return how many slots may be taken: none when open, few in probation."""
        if not self.closed:
            return 0
        if _settled(self, now).state != "probation":
            return slots
        time = (now - self.since) / SLOW_START_SECONDS
        share = max(time, self.wins / SLOW_START_SUCCESSES, 0.0)
        return 1 + int((slots - 1) * min(share, 1.0))


def _noted(health: Circuit, *, failed: bool) -> Circuit:
    return replace(health, recent=(*health.recent, failed)[-WINDOW:])


def _too_often(recent: tuple[bool, ...]) -> bool:
    in_a_row = recent[-IN_A_ROW:]
    return (len(in_a_row) == IN_A_ROW and all(in_a_row)) or sum(recent) * 2 > WINDOW


def _settled(health: Circuit, now: float) -> Circuit:
    """End probation. Successes prove health; time alone only ends it."""
    if health.state != "probation":
        return health
    if health.wins >= SLOW_START_SUCCESSES:
        return _ready(health, now)
    if now - health.since >= SLOW_START_SECONDS:
        return replace(health, state="ready", since=now)
    return health


def _ready(health: Circuit, now: float) -> Circuit:
    return replace(health, state="ready", since=now, opened=0, probe_at=None)


def _opened(health: Circuit, now: float, jitter: float) -> Circuit:
    first, most = BACK_OFF_SECONDS
    # Up to a quarter less: nodes that failed together should not be probed together.
    delay = min(first * 2.0 ** min(health.opened, 10), most) * (1 - jitter / 4)
    times = health.opened + 1
    return Circuit(state="open", since=now, opened=times, probe_at=now + delay)
