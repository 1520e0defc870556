"""Watchdog: notice attempts that make no progress, and give them up.

While a decode hangs, `/health` answers 200 and the connection stays open; only missing
output shows it. While a client takes nothing of its answer, nothing is read from the
engine either: then the silence is ours, and `stall_seconds` alone limits it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from math import inf

from balancer.failover.context import RequestContext
from balancer.failover.stall import (
    ExpectedPace,
    Progress,
    RetryBudget,
    Sign,
    is_sooner,
    may_be_late,
    most_at_once,
    slowest,
)
from balancer.fleet.engines import EngineKey
from balancer.health.faults import Fault
from balancer.routing.decision import RoutingRequest, Send
from balancer.routing.filters import Filtered, filter_engines
from balancer.routing.moving import Move
from balancer.state import BalancerState
from edgeserve.runtime.background import declared, guarded
from edgeserve.runtime.clock import ActiveClock, Ticker

UNLEARNED = ExpectedPace()

EVERY_SECONDS = 0.25

WATCH = declared("progress watch", "timer")

QUIET_SECONDS = 5.0
"""Without a sign from an engine, until a probe; from its node too, until a retry."""

BLINK_SECONDS = 2.0
"""A broken event stream is back before that, if its node is."""

LATELY_SECONDS = 5.0
"""A connection that breaks so soon after a pause of ours broke because of it."""

APART_SECONDS = 0.05  # between checks whether a request has its first text


def never() -> bool:
    """Stand for a client that reads."""
    return False


class AttemptWatchdog(Progress, eq=False, kw_only=True):
    """The progress of one request at one engine, and why it was given up, if it was.

    `predicted`: seconds to its first token, None where nothing is. `reports_progress`:
    the engine reports when it begins. `may_pause`: the text may come in large pieces.
    `paused`: whether the client takes nothing now. `suspect`: an engine has died at
    this request before. `texts` counts pieces of the answer's text. `move`: where it
    goes on, if it was given up for that.
    """

    watchdog: Watchdog
    key: EngineKey
    routing: RoutingRequest
    send: Send | None = None
    context: RequestContext | None = None
    started: float
    predicted: float | None
    reports_progress: bool
    may_pause: bool = False
    paused: Callable[[], bool] = never
    suspect: bool = False
    texts: int = 0
    why: str = ""
    move: Move | None = None
    fault: Fault = "none"
    _texts_seen: int = 0
    _probed: bool = False
    _silent_since: float | None = None
    _paused_at: float = -inf
    _trusted: bool = True
    _task: asyncio.Task[object] | None = None

    def __post_init__(self) -> None:
        self._trusted = self.watchdog.trusted(self.key)
        self._task = asyncio.current_task()

    @property
    def has_text(self) -> bool:
        """Whether the engine has begun to answer."""
        return self.texts > 0 or self.phase == "writing"

    def note(self, sign: Sign) -> None:
        """Note a sign of life."""
        self.showed(sign, self.watchdog.time())

    @property
    def excused(self) -> bool:
        """Whether the connection may have broken because we, or our client, paused."""
        lately = self.watchdog.time() - self._paused_at < LATELY_SECONDS
        return lately or self.paused() or self.watchdog.woke

    @property
    def hidden(self) -> bool:
        """Whether the engine may work on the request without a sign."""
        if self.paused():
            return True
        reports = self.reports_progress and not self.routing.media
        return self.phase != "writing" and not reports

    def tick(self, now: float) -> None:
        """Look at what has come, and give up a request that is stuck or late."""
        if self.why:
            return
        if self.texts != self._texts_seen:
            self._texts_seen = self.texts
            self.showed("text", now)
        if self.watchdog.stuck(self.key):
            self._give_up("its node has given it up", "engine")
        elif self.paused():
            self._paused_at = now
            self.wait_from(now)
        elif self._is_node_silent(now):
            self._give_up("its node is silent", "none")
        elif self.phase == "queued":
            self._check_queued(now)
        elif self._is_stuck(now):
            self._give_up("it made no progress", "engine")

    def _is_stuck(self, now: float) -> bool:
        pace = self._pace
        if now >= self.stuck_at(pace):
            return now >= self.excused_until(pace, self.watchdog.last_read(self))
        if now < (hung_at := self.hung_at(pace)):
            return False
        quiet = hung_at - self.worked_at
        return now >= self.watchdog.last_work(self.key) + quiet

    def _is_node_silent(self, now: float) -> bool:
        """Whether for a while nothing has come from the engine or from its node."""
        quiet = now - max(self.started, self.alive_at) >= QUIET_SECONDS
        if not quiet or not self.watchdog.node_silent(self.routing, self.key):
            self._silent_since = None
            return False
        if self._silent_since is None:
            self._silent_since = now
        return now - self._silent_since >= BLINK_SECONDS

    @property
    def _pace(self) -> ExpectedPace:
        """The expected pace; where the text may pause, that of an unknown engine."""
        return UNLEARNED if self.may_pause else self.watchdog.pace(self.key)

    def _check_queued(self, now: float) -> None:
        """Nothing shows that the engine has begun: another one loses no work."""
        if self._trusted and not self.watchdog.trusted(self.key):
            self._give_up("its engine does not answer a probe", "none")
        elif self.reports_progress and self._is_late(now):
            self._give_up("it did not begin in time", "doubt")
        elif not self._probed and now - self.started > self._usual_silence:
            self._probed = True
            self.watchdog.probe(self.key)

    @property
    def _usual_silence(self) -> float:
        """Seconds without a sign that are nothing unusual."""
        if self.reports_progress:
            return QUIET_SECONDS
        return QUIET_SECONDS + 3 * (self.predicted or QUIET_SECONDS)

    def _is_late(self, now: float) -> bool:
        if self.predicted is None or not may_be_late(self.started, self.predicted, now):
            return False
        remaining = max(self.predicted, now - self.started)
        elsewhere = self.watchdog.seconds_elsewhere(self.routing, self.key)
        return self.watchdog.budget_left > 0 and is_sooner(elsewhere, remaining)

    def leave(self, move: Move) -> None:
        """Go on at a faster engine."""
        self.move = move
        self._give_up(move.why, "none")

    def _give_up(self, why: str, fault: Fault) -> None:
        self.why, self.fault = why, fault
        if self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        """Drop the task: it holds the exception that it raised, which holds this."""
        self._task = None

    def gave_up(self) -> bool:
        """Whether the cancellation under way is ours alone."""
        task = asyncio.current_task()
        return bool(self.why) and task is not None and task.uncancel() == 0


Look = Callable[[Collection[AttemptWatchdog], float], None]


class Watchdog:
    """Looks at all running attempts; `look` may move some of them elsewhere."""

    def __init__(
        self, state: BalancerState, awake: ActiveClock, look: Look | None = None
    ) -> None:
        self.budget, self._look = RetryBudget(), look
        self._state = state
        self._ticker = Ticker(EVERY_SECONDS)
        self.attempts = set[AttemptWatchdog]()
        self._awake = awake
        self.time = awake.time

    def watch(self, attempt: AttemptWatchdog) -> None:
        """Look at an attempt from now on."""
        if not self.attempts:
            self._ticker.add(self)
        self.attempts.add(attempt)

    def end(self, attempt: AttemptWatchdog) -> None:
        """Look at an attempt no longer."""
        attempt.end()
        self.attempts.discard(attempt)
        if not self.attempts:
            self._ticker.discard(self)

    def tick(self, now: float) -> None:
        """Look at every attempt."""
        now = self.time()  # the ticker's clock goes on while this process stands still
        for attempt in tuple(self.attempts):
            guarded(WATCH, partial(attempt.tick, now))
        if self._look and self.budget_left and not self.woke:
            guarded(WATCH, partial(self._look, self.attempts, now))

    def close(self) -> None:
        """Stop the ticker."""
        self._ticker.stop()

    def is_alone(self, attempt: AttemptWatchdog) -> bool:
        """Whether its engine runs nothing else of ours."""
        others = self.attempts - {attempt}
        return all(each.key != attempt.key for each in others)

    async def wait_apart(self, key: EngineKey) -> None:
        """Wait until no other suspect request might end this engine."""
        while any(  # noqa: ASYNC110 - rare, and text is only counted, not signalled
            each.suspect and each.key == key and not each.has_text
            for each in self.attempts
        ):
            await asyncio.sleep(APART_SECONDS)

    def pace(self, key: EngineKey) -> ExpectedPace:
        """Return the learned pace of an engine."""
        model = self._state.predictive.fleet_model.get(key)
        if model is None or not model.learner.calibrated:
            return UNLEARNED
        # While others' prompts are read, a token waits for a whole batch.
        batch, engine = model.batch * model.per_read, self._state.breakers.engine(key)
        burst = most_at_once(engine.launch) if engine else 1
        return ExpectedPace(token=slowest(model.per_token, burst) + batch, batch=batch)

    def trusted(self, key: EngineKey) -> bool:
        """Whether users' requests go to an engine."""
        return self._state.breakers.health(key).closed

    def seconds_elsewhere(
        self, routing: RoutingRequest, key: EngineKey
    ) -> float | None:
        """Return the seconds to the first token on the best other idle engine."""
        return self._state.predictive.idle(routing, key)

    def node_silent(self, routing: RoutingRequest, key: EngineKey) -> bool:
        """Whether an engine's whole node is silent, and another could serve."""
        current = self._state.current
        node = current.fleet.node(key[0])
        if node is not None and node.state not in {"suspect", "unreachable"}:
            return False
        others = [each for each in current.candidates if each.key != key]
        filtered = filter_engines(others, routing)
        return isinstance(filtered, Filtered) and bool(filtered.open)

    def last_work(self, key: EngineKey) -> float:
        """Return when an engine last showed work; `inf` if it may work unseen."""
        model = self._state.predictive.fleet_model.get(key)
        here = [each for each in self.attempts if each.key == key]
        if model is None or model.foreign or any(each.hidden for each in here):
            return inf
        return max((each.worked_at for each in here), default=0.0)

    def last_read(self, attempt: AttemptWatchdog) -> float:
        """Return when its engine last showed that it reads another's prompt."""
        others = [e for e in self.attempts if e.key == attempt.key and e is not attempt]
        return max((e.worked_at for e in others if e.phase == "reading"), default=-inf)

    def stuck(self, key: EngineKey) -> bool:
        """Whether its node has given an engine up."""
        engine = self._state.breakers.engine(key)
        return engine is not None and engine.state == "stuck"

    def probe(self, key: EngineKey) -> None:
        """Have an engine probed."""
        self._state.breakers.failed(key, "doubt")

    @property
    def budget_left(self) -> int:
        """How many requests may be tried again now."""
        self.budget.in_flight = self._state.in_flight.inside
        return self.budget.left

    @property
    def woke(self) -> bool:
        """Whether this process, or its whole machine, stood still a moment ago."""
        return self._awake.woke(LATELY_SECONDS)
