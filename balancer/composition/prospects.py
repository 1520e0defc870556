"""Prospects: what a request to a model would meet now, by prediction. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf

from balancer.composition.routes import Prospect
from balancer.fleet.engines import ASLEEP, FULL_NOW, EngineKey, seconds_left
from balancer.prediction.cost import CostEstimate
from balancer.routing.decision import Refuse, RoutingRequest, Verdict
from balancer.routing.eligibility import Eligible
from balancer.routing.predictive import PredictivePolicy
from edgeserve.errors import NoneAsGood, NoNode, UnknownModel
from edgeserve.wire import EngineReport

MOST_REASONS = 3
"""Reasons in one sentence; `edgeserve why` has what was found of each engine."""


@dataclass(frozen=True, kw_only=True)
class Prospects:
    """Predicts for each model of a route what a request would meet.

    `busy` counts the taken slots of an engine, `ahead` the requests that wait for a
    model. Without `predicts`, where slots are only counted, a model is full when every
    slot is busy; so it is for requests that generate no text.
    """

    predictive: PredictivePolicy
    busy: Callable[[EngineKey], int]
    ahead: Callable[[str], int]
    predicts: bool

    def of(self, routing: RoutingRequest, full_seconds: float) -> Prospect:
        """Return the prospect of the model that `routing` names."""
        eligible = self.predictive.eligible(routing)
        if isinstance(eligible, Refuse):
            return _refused(eligible, routing)
        filtered = eligible.filtered
        if not filtered.open:
            return _closed(filtered.out, full_seconds)
        estimate = self.predictive.expected(routing, eligible)
        tokens = estimate.tokens if estimate else 0
        longest = max(each.context for each in filtered.open)
        if tokens >= longest:
            return Prospect(too_long=_too_long(longest, f"about {tokens:.0f} tokens"))
        if estimate is None or not self.predicts:
            return Prospect(full=self._counted(routing, eligible))
        first = self._first(estimate, eligible)
        if first <= full_seconds:
            return Prospect()
        return Prospect(full=f"is full: its first token would come in {first:.1f} s")

    def _first(self, best: CostEstimate, eligible: Eligible) -> float:
        """Return the seconds to the first token, behind all that wait for the model.

        Where not all speeds were measured, only the wait for a slot is relied on.
        """
        engines = eligible.engines
        reserved = sum(each.queued for each in engines)
        waiting = max(0, self.ahead(best.engine.model) - reserved)
        behind = waiting * best.work / sum(each.slots for each in engines)
        return behind + (best.first if eligible.measured else best.wait)

    def _counted(self, routing: RoutingRequest, eligible: Eligible) -> str:
        free = any(
            self.busy(each.key) + routing.slots <= each.engine.slots
            for each in eligible.filtered.open
        )
        return "" if free or not routing.slots else "is full: every slot is busy"


def _refused(refuse: Refuse, routing: RoutingRequest) -> Prospect:
    """Say why no engine can serve it, and none will soon."""
    contexts = [each.candidate.context for each in refuse.verdicts]
    if contexts and 0 < max(contexts) <= routing.too_short:
        why = _too_long(max(contexts), "more")
        return Prospect(too_long=why, waits=False)
    match refuse.error:
        case NoneAsGood():
            why = f"has no variant as good as {routing.floor}"
        case UnknownModel():
            why = "is served by no node"
        case NoNode():
            why = _reasons(refuse.verdicts)
        case error:
            why = f"cannot serve this: {error}"
    return Prospect(away=why, waits=False)


def _closed(out: Iterable[Verdict], full_seconds: float) -> Prospect:
    """Say when an engine will have loaded, or why there is none to wait for."""
    out = list(out)
    hopeful = [
        each.candidate
        for each in out
        if each.candidate.temporary and each.reason == each.candidate.unavailable
    ]
    if any(each.unavailable == FULL_NOW for each in hopeful):
        return Prospect(full=f"is full: {FULL_NOW}")
    awake = [each.engine for each in hopeful if each.unavailable != ASLEEP]
    loads = min(map(load_left, awake), default=inf)
    if loads <= full_seconds:
        return Prospect()
    if loads < inf:
        return Prospect(away=f"is away: it would take {loads:.0f} s to load")
    return Prospect(away=_reasons(out))


def load_left(engine: EngineReport) -> float:
    """Return in how many seconds an engine that is to be loaded is ready, if known."""
    if engine.state not in {"absent", "loading"} or engine.load_seconds <= 0:
        return inf
    return seconds_left(engine)


def _reasons(verdicts: Iterable[Verdict]) -> str:
    found = dict.fromkeys(each.reason for each in verdicts if each.reason)
    return f"is away: {', '.join(list(found)[:MOST_REASONS]) or 'no engine serves it'}"


def _too_long(context: int, has: str) -> str:
    return f"has a context of {context} tokens, and the prompt has {has}"
