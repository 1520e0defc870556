"""Scaling rules: when a model gets one more replica, and when one is let go. Pure.

A replica is worth its memory while it shortens waits. So a model gets one when requests
would wait longer than the goal, and loses one when the others would do. Loading takes
seconds to minutes, in which nothing is gained, so each rule asks first how long its
reason will last:

* Out, when the predicted wait has been over the goal for a while (`OVER_SECONDS`, and a
  tenth of the load): a spike is over before any engine is ready. And only where the
  replica is ready before the backlog is worked off; else the load is in vain. How soon
  that is, the trend of the wait says: it grows while more comes than is worked off.
* One replica of a model at a time: what the first one changes is not known before it
  serves.
* Another model's engine leaves for it only if that is idle, its model has less to do,
  and keeps a replica or has not been asked for in a calm time. Else two busy models
  would take each other's memory in turns.
* In, when for a calm time (`CALM_SECONDS`, and ten times the load) the replicas that
  stay would have kept the wait below a third of the goal. All of that time counts, as
  in the stabilization window of Kubernetes' Horizontal Pod Autoscaler (300 s by
  default, for scaling down only). Ten loads, so that loading is at most a tenth of what
  a replica is used for. A third, so that letting one go does not bring it back.
* Never the last one: keep-alive, which its node knows, decides about that, as Knative
  has a retention period of its own for the last replica.
* After a load none is let go for a calm time. After either, none is loaded for a tenth
  of that, so that the change shows first; a node that refused is not asked each second.

It keeps within the limits of a model; to bring a model within them is not its part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import exp, inf
from typing import Literal

import msgspec

from balancer.fleet.engines import EngineKey

OVER_SECONDS = 1.0
"""Least time that the predicted wait is over the goal before a replica is loaded."""

CALM_SECONDS = 60.0
"""Least time in which one replica less would have done before one is let go."""

LOADS = 10
"""A calm time is at least so many times the load; other times are a tenth of that."""

TREND_SECONDS = 15.0
"""Time over which the trend of the wait is taken: longer than a few requests take."""

MEAN_SECONDS = 30.0
"""Time constant of the mean work of a model."""

HORIZON = 300.0
"""Seconds by which places are compared where the backlog never ends."""


class AbsentReplica(msgspec.Struct, frozen=True, kw_only=True):
    """An engine of a model that could be loaded on a node.

    `seconds`: how long a usual request holds one of its slots. `evicts`: the engines
    that would leave for it; none where it fits beside them.
    """

    key: EngineKey
    slots: int
    seconds: float
    load_seconds: float
    evicts: tuple[EngineKey, ...] = ()

    @property
    def rate(self) -> float:
        """Requests a second that it can answer."""
        return self.slots / max(self.seconds, 1e-6)

    @property
    def calm(self) -> float:
        """How long nothing must happen before it is let go."""
        return max(CALM_SECONDS, LOADS * self.load_seconds)


class Replica(AbsentReplica, frozen=True, kw_only=True):
    """One engine of a model that is loaded, or `loading`.

    `idle_seconds` counts from its last request, 0 while it has one.
    """

    idle_seconds: float = 0.0
    loading: bool = False
    pinned: bool = False


class ScaledModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model as the autoscaler sees it.

    `wait` is predicted for the newest request that waits, or for one that came now.
    `waiting` requests wait and `running` run. `least` and `most` are its limits.
    """

    model: str
    wait: float
    waiting: int = 0
    running: int = 0
    replicas: tuple[Replica, ...] = ()
    absent: tuple[AbsentReplica, ...] = ()
    least: int = 0
    most: int | None = None


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """One decision: load this engine, or unload it, and why."""

    action: Literal["load", "unload"]
    model: str
    engine: EngineKey
    why: str


@dataclass(slots=True)
class _Watch:
    """What is remembered of one model. `over`: since when the wait is over the goal.

    `waits` has (when, how long) while it is; `work` is the mean number of requests that
    run or wait.
    """

    waits: deque[tuple[float, float]] = field(
        default_factory=deque[tuple[float, float]]
    )
    over: float | None = None
    calm: float | None = None
    loaded_at: float = -inf
    unloaded_at: float = -inf
    work: float = 0.0
    seen_at: float | None = None

    def worked_off(self) -> float:
        """Seconds until nothing waits, if the wait goes on to fall as it does."""
        (then, before), (now, wait) = self.waits[0], self.waits[-1]
        return wait * (now - then) / (before - wait) if wait < before else inf

    def note(self, seen: ScaledModel, goal: float, now: float) -> None:
        """Take in what a model does now."""
        busy = seen.running + seen.waiting
        passed = 0.0 if self.seen_at is None else now - self.seen_at
        self.work += (busy - self.work) * (1 - exp(-passed / MEAN_SECONDS))
        self.seen_at = now
        self._note_wait(seen.wait, goal, now)
        spare = dispensable(seen)
        if spare is None or max(seen.wait, wait_without(seen, spare)) >= goal / 3:
            self.calm = None
        elif self.calm is None:
            self.calm = now

    def _note_wait(self, wait: float, goal: float, now: float) -> None:
        if wait <= goal:
            self.over = None
            self.waits.clear()
            return
        self.over = now if self.over is None else self.over
        self.waits.append((now, wait))
        while len(self.waits) > 2 and self.waits[1][0] <= now - TREND_SECONDS:
            self.waits.popleft()


def dispensable(seen: ScaledModel) -> Replica | None:
    """Return the replica that would be let go: the one that answers fewest requests.

    Two balancers choose the same one, so that they do not unload two.
    """
    loaded = [each for each in seen.replicas if not each.loading]
    loose = [each for each in loaded if not each.pinned]
    if len(loaded) < 2 or not loose:
        return None
    return min(loose, key=lambda each: (each.rate, each.key))


def wait_without(seen: ScaledModel, spare: Replica) -> float:
    """Return how long a request that came now would wait without a replica."""
    stay = [each for each in seen.replicas if not each.loading and each != spare]
    ahead = seen.running + seen.waiting - sum(each.slots for each in stay) + 1
    return max(0, ahead) / sum(each.rate for each in stay)


class Scaler:
    """Decides for all models at once; remembers what they did. `goal` is in seconds."""

    def __init__(self, goal: float) -> None:
        self.goal = goal
        self._watches: dict[str, _Watch] = {}

    def decide(self, models: Sequence[ScaledModel], now: float) -> list[Scale]:
        """Return what to load and unload now; the caller does it. Call it each second.

        Two loads are never on one node: the second was planned without the first.
        """
        known = {
            each.model: self._watches.get(each.model) or _Watch() for each in models
        }
        self._watches = known
        for each in models:
            known[each.model].note(each, self.goal, now)
        found, nodes = list[Scale](), set[str]()
        for each in sorted(models, key=lambda each: -each.wait):
            scale = self._out(each, models, nodes, now) or self._in(each, now)
            if scale is not None:
                nodes.add(scale.engine[0])
                found.append(scale)
        return found

    def _out(
        self, seen: ScaledModel, all_: Sequence[ScaledModel], but: set[str], now: float
    ) -> Scale | None:
        watch, count = self._watches[seen.model], len(seen.replicas)
        most = inf if seen.most is None else seen.most
        if count >= most or any(each.loading for each in seen.replicas):
            return None
        places = [
            each
            for each in seen.absent
            if each.key[0] not in but and self._pays(seen, each, now)
        ]
        if not places:
            return None
        place = self._best(places, all_, watch.worked_off(), watch.work)
        if place is None:
            return None
        watch.loaded_at, watch.over, watch.calm = now, None, None
        watch.waits.clear()
        why = f"a request would wait {seen.wait:.1f} s, more than {self.goal:g} s"
        return Scale(action="load", model=seen.model, engine=place.key, why=why)

    def _pays(self, seen: ScaledModel, place: AbsentReplica, now: float) -> bool:
        """Whether the wait is over the goal for long enough, now and after a load."""
        watch = self._watches[seen.model]
        if not seen.replicas or watch.over is None:
            return False  # the first replica is loaded on demand, for a request
        if now - watch.over < max(OVER_SECONDS, place.load_seconds / LOADS):
            return False
        changed_at = max(watch.loaded_at, watch.unloaded_at)
        settled = now - changed_at >= place.calm / LOADS
        return settled and watch.worked_off() > place.load_seconds

    def _best(
        self,
        places: Iterable[AbsentReplica],
        all_: Sequence[ScaledModel],
        left: float,
        work: float,
    ) -> AbsentReplica | None:
        """Return where it answers most of the backlog, less what others lose by it."""
        gains = dict[AbsentReplica, float]()
        for each in places:
            lost = [self._lost(key, all_, work) for key in each.evicts]
            if inf not in lost:
                answers = each.rate * (min(left, HORIZON) - each.load_seconds)
                gains[each] = answers - sum(lost)
        return max(gains, key=lambda each: (gains[each], each.key), default=None)

    def _lost(self, key: EngineKey, all_: Sequence[ScaledModel], work: float) -> float:
        """Count the requests that come while an evicted engine loads again.

        Infinite where it may not be evicted for a model with so much `work`.
        """
        for other in all_:
            for each in other.replicas:
                if each.key == key:
                    theirs = self._watches[other.model].work
                    may = theirs < work and _may_leave(each, other)
                    return theirs / each.seconds * each.load_seconds if may else inf
        return inf

    def _in(self, seen: ScaledModel, now: float) -> Scale | None:
        watch, spare = self._watches[seen.model], dispensable(seen)
        if spare is None or not spare.idle_seconds:
            return None
        if len(seen.replicas) <= seen.least or not self._calm(watch, spare, now):
            return None
        watch.unloaded_at, watch.calm = now, None
        why = f"for {spare.calm:.0f} s the others would have sufficed"
        return Scale(action="unload", model=seen.model, engine=spare.key, why=why)

    def _calm(self, watch: _Watch, spare: Replica, now: float) -> bool:
        """Whether it was dispensable for its calm time, which began after a load."""
        since = inf if watch.calm is None else max(watch.calm, watch.loaded_at)
        return now - since >= spare.calm


def _may_leave(replica: Replica, of: ScaledModel) -> bool:
    """Whether an engine of another model may leave: idle, unpinned, and not missed."""
    if replica.pinned or replica.loading or not replica.idle_seconds or of.waiting:
        return False
    stay = sum(not each.loading for each in of.replicas) - 1
    return stay >= of.least and (stay > 0 or replica.idle_seconds >= replica.calm)
