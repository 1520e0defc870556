"""Eligibility: the engines that can serve a request, cached until a change. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from balancer.fleet.engines import (
    Difference,
    EngineCandidate,
    EngineKey,
    is_as_eligible,
)
from balancer.prediction.cost import Considered, CostEstimate, estimates
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.fleet_model import FleetModel
from balancer.prediction.large.search import MANY, Searched, ranked
from balancer.routing.decision import Refuse, RoutingRequest, Verdict
from balancer.routing.filters import Filtered, filter_engines


@dataclass(frozen=True, slots=True)
class Eligible:
    """The `engines` that can serve a request now or soon, fast ones first.

    `searched` has the same ones. `candidate_by_name` holds the candidate of each;
    `spared` engines could serve it but are a last resort, with the reason. Each engine
    has at least `least_slots`.
    """

    filtered: Filtered
    engines: Sequence[EngineModel]
    searched: Searched
    candidate_by_name: dict[str, EngineCandidate]
    spared: tuple[tuple[EngineCandidate, str], ...]
    least_slots: int

    @property
    def measured(self) -> bool:
        """Whether every speed was measured: only then can a prediction be relied on."""
        return all(engine.learner.calibrated for engine in self.engines)


EligibilityKey = tuple[object, ...]


@dataclass(slots=True)
class EligibilityCache:
    """Filters once for all equal needs, until the fleet changes."""

    fleet_model: FleetModel
    candidates: Sequence[EngineCandidate] = ()
    _shortest: int = 0
    _last_resort: dict[EngineKey, str] = field(default_factory=dict[EngineKey, str])
    _found: dict[EligibilityKey, Eligible | Refuse] = field(
        default_factory=dict[EligibilityKey, "Eligible | Refuse"]
    )

    def update(self, candidates: Sequence[EngineCandidate]) -> None:
        """Take in a change of the fleet, which often is that a slot was taken."""
        before, self.candidates = self.candidates, candidates
        if not self._matters(before):
            return
        self._last_resort = dict(self.fleet_model.last_resort)
        self._shortest = min((each.context for each in candidates), default=0)
        self._found.clear()

    def _matters(self, before: Sequence[EngineCandidate]) -> bool:
        """Whether a filter could say something else now."""
        if len(self.candidates) <= MANY:
            return True  # to filter them again takes less than to compare
        if self.fleet_model.last_resort != self._last_resort:
            return True
        found = Difference.of(before, self.candidates)
        return bool(found.gone) or any(
            old is None or not is_as_eligible(old, new) for old, new in found.pairs
        )

    def find(self, routing: RoutingRequest) -> Eligible | Refuse:
        """Return the engines that can serve it, or why none can."""
        key = routing.needs(self._shortest)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._filtered(routing)
        return found

    def _filtered(self, routing: RoutingRequest) -> Eligible | Refuse:
        filtered = filter_engines(self.candidates, routing)
        if isinstance(filtered, Refuse):
            return filtered
        last_resort = self.fleet_model.last_resort
        usable = [each for each in filtered.open if each.key not in last_resort]
        usable = usable or [*filtered.open]
        candidate_by_name = {" ".join(each.key): each for each in usable}
        engines = sorted(
            self.fleet_model.of(usable), key=lambda engine: engine.per_read
        )
        spared = tuple(
            (each, last_resort[each.key])
            for each in filtered.open
            if " ".join(each.key) not in candidate_by_name
        )
        least = min((engine.slots for engine in engines), default=1)
        return Eligible(
            filtered=filtered,
            engines=engines,
            searched=ranked(engines),
            candidate_by_name=candidate_by_name,
            spared=spared,
            least_slots=least,
        )


OTHERS_FIRST = "costs more, by its speed, load and slots alone"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Every candidate's verdict, computed when it is read.

    `chosen` is None for a request that waits or was refused.
    """

    eligible: Eligible
    considered: Considered
    chosen: CostEstimate | None = None

    def __iter__(self) -> Iterator[Verdict]:
        """Yield the cheapest first, then those that were not compared."""
        found = estimates(self.considered)
        best = self.chosen or (found[0] if found else None)
        for each in found:
            to = self.eligible.candidate_by_name[each.engine.name]
            yield Verdict(candidate=to, reason=self._reason(each, best), estimate=each)
        looked_at = {each.engine.name for each in found}
        for name, to in self.eligible.candidate_by_name.items():
            if name not in looked_at:
                yield Verdict(candidate=to, reason=OTHERS_FIRST)
        for to, why in self.eligible.spared:
            yield Verdict(candidate=to, reason=f"left alone: {why}")
        yield from self.eligible.filtered.out

    def _reason(self, each: CostEstimate, best: CostEstimate | None) -> str | None:
        if best is None or each is self.chosen:
            return None
        if each is best and each.wait <= 0 and each.slot >= 0:
            return "the best, but its slot is kept for the conversation in it"
        if each is best:
            return f"the best, but its next slot comes free in {each.wait:.1f} s"
        if each.exact and each.cost < best.cost:
            return f"takes {each.joules:.0f} J, the chosen one {best.joules:.0f} J"
        more = f"{each.cost:.2f} against {best.cost:.2f} s"
        least = "" if each.exact else "at least "
        return f"{'is busy and ' if each.wait > 0 else ''}costs more: {least}{more}"
