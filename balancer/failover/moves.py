"""Moves of running requests: find the one that gains most, and have it go elsewhere.

It looks once a second, and only while a measured engine has a slot that no request
waits for. The engine that is left gets no blame. Before its first token a request
is asked anew; after it, it is resumed, so only where its answer can be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial

from msgspec import structs

from balancer.dialects.base import Dialect
from balancer.failover.resume import Resume, is_foreign
from balancer.failover.watchdog import AttemptWatchdog
from balancer.fleet.engines import EngineCandidate
from balancer.probes.calibration import CALIBRATE
from balancer.probes.template import TemplateProbe
from balancer.routing.moving import MOST_MOVES, Move, Remaining, pays, remaining
from balancer.routing.tracking import AttemptTracker
from balancer.state import BalancerState
from edgeserve.runtime.background import Tasks

LOOK_SECONDS = 1.0

LOOK = 4
"""Requests that are compared exactly, of those that may gain most."""

Gain = tuple[float, AttemptWatchdog, Remaining]
"""The most seconds that a request could save, and what is left of it."""


class Mover:
    """Moves one request at a time to an engine that ends it much sooner."""

    def __init__(
        self, state: BalancerState, templates: TemplateProbe, tasks: Tasks
    ) -> None:
        self._state = state
        self._templates = templates
        self._tasks = tasks
        self._next = 0.0

    def look(self, attempts: Collection[AttemptWatchdog], now: float) -> None:
        """Move the request that gains most, if any; `now` is the watchdog's time."""
        if now < self._next:
            return
        self._next = now + LOOK_SECONDS
        gains = sorted(self._gains(attempts, now), key=lambda each: -each[0])
        for _, attempt, left in gains[:LOOK]:
            if (move := self._move(attempt, left)) is not None:
                attempt.leave(move)
                self._next = now
                return

    def _gains(
        self, attempts: Collection[AttemptWatchdog], now: float
    ) -> Iterable[Gain]:
        """Yield the requests that a faster engine could help."""
        pace = dict[str, float | None]()
        quiet = _quiet(attempts, now)
        for attempt in attempts:
            send = attempt.send
            if not isinstance(send, AttemptTracker) or not _may_move(attempt):
                continue
            if send.model not in pace:
                pace[send.model] = self._state.predictive.idle_pace(send.model)
            least = pace[send.model]
            if least is None:
                continue
            left = self._left(attempt, send, quiet)
            there = left.answer * least
            if pays(left.seconds, there):
                yield left.seconds - there, attempt, left

    def _left(
        self,
        attempt: AttemptWatchdog,
        send: AttemptTracker,
        quiet: dict[object, float],
    ) -> Remaining:
        return remaining(
            send.assignment,
            self._state.records.clock(),
            read=send.read,
            read_seconds=send.read_seconds,
            written=attempt.texts,
            quiet=quiet[attempt.key] if attempt.reports_progress else None,
        )

    def _move(self, attempt: AttemptWatchdog, left: Remaining) -> Move | None:
        send, context = attempt.send, attempt.context
        if send is None or context is None:
            return None
        routing = context.routing(send.to)
        ruled_out = context.ruled_out | {send.to.incarnation}
        move = self._state.predictive.move(
            structs.replace(routing, tried=ruled_out), left
        )
        if move is None or not context.response.sent.size:
            return move
        plan, context.plan = context.resume_plan(move.to.engine), None
        if not isinstance(plan, Resume):
            return None
        if is_foreign(move.to.engine) and plan.portable is None:
            return None
        if plan.continues and not self._continues(move.to, context.request.dialect):
            return None
        return move

    def _continues(self, to: EngineCandidate, dialect: type[Dialect]) -> bool:
        """Whether an engine's template is known to continue a message; else ask it."""
        if to.engine.kind == "server":
            return True  # only those that were seen to go on are looked at
        refuses = self._templates.known(to, dialect)
        if refuses is None:
            ask = partial(self._templates.refuses, to, dialect)
            self._tasks.start(CALIBRATE, ask, f"template of {to.engine.variant}")
        return refuses is False


def _may_move(attempt: AttemptWatchdog) -> bool:
    context = attempt.context
    return (
        context is not None
        and context.moves < MOST_MOVES
        and not (attempt.why or attempt.suspect or attempt.routing.media)
        and attempt.routing.slots == 1
        and not _from_server(attempt)
        and not attempt.paused()
    )


def _from_server(attempt: AttemptWatchdog) -> bool:
    """Whether a server that is no node answers: what is left there is only guessed."""
    return attempt.send is not None and attempt.send.to.engine.kind == "server"


def _quiet(attempts: Collection[AttemptWatchdog], now: float) -> dict[object, float]:
    """Return for how long each engine has shown no work."""
    found = dict[object, float]()
    for each in attempts:
        quiet = now - (each.worked_at or each.started)
        found[each.key] = min(found.get(each.key, quiet), quiet)
    return found
