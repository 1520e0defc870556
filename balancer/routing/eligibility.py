"""Eligibility: which engines a policy chooses among, and why; cached. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from balancer.fleet.engines import EngineCandidate
from balancer.prediction.cost import Considered, CostEstimate
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.fleet_model import FleetModel
from balancer.routing.decision import Refuse, RoutingRequest, Verdict
from balancer.routing.filters import Filtered, filter_engines


@dataclass(frozen=True, slots=True)
class Eligible:
    """Who can serve a request now or soon: `lanes`, quick ones first.

    `by_lane` names the engine of each; `spared` could serve but are left alone.
    """

    sifted: Filtered
    lanes: tuple[EngineModel, ...]
    by_lane: dict[str, EngineCandidate]
    spared: tuple[tuple[EngineCandidate, str], ...]

    @property
    def measured(self) -> bool:
        """Whether every speed was measured: only then is a prediction a promise."""
        return all(lane.learner.calibrated for lane in self.lanes)


EligibilityKey = tuple[object, ...]


@dataclass(slots=True)
class EligibilityCache:
    """Filters once for all needs that are alike, until the fleet changes."""

    lanes: FleetModel
    candidates: Sequence[EngineCandidate] = ()
    _shortest: int = 0
    _found: dict[EligibilityKey, Eligible | Refuse] = field(
        default_factory=dict[EligibilityKey, "Eligible | Refuse"]
    )

    def told(self, candidates: Sequence[EngineCandidate]) -> None:
        """The fleet changed."""
        self.candidates = candidates
        self._shortest = min((each.engine.context for each in candidates), default=0)
        self._found.clear()

    def able(self, need: RoutingRequest) -> Eligible | Refuse:
        """Who can serve it."""
        # Only a prompt that may be too long for somebody needs its length looked at.
        tokens = need.tokens if need.tokens > self._shortest else 0
        model, ability, slots = need.model, need.ability, need.slots
        key = (
            *(model, ability, slots, tokens),
            *(need.too_short, need.also, need.tried, need.floor),
        )
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._sifted(need)
        return found

    def _sifted(self, need: RoutingRequest) -> Eligible | Refuse:
        sifted = filter_engines(self.candidates, need)
        if isinstance(sifted, Refuse):
            return sifted
        spare = self.lanes.spare
        kept = [each for each in sifted.open if each.key not in spare]
        kept = kept or [*sifted.open]
        by_lane = {" ".join(each.key): each for each in kept}
        lanes = sorted(self.lanes.of(kept), key=lambda lane: lane.per_read)
        spared = tuple(
            (each, spare[each.key])
            for each in sifted.open
            if " ".join(each.key) not in by_lane
        )
        return Eligible(sifted, tuple(lanes), by_lane, spared)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Every candidate's verdict, worked out when somebody looks.

    `chosen` is None for a request that waits or was turned away.
    """

    able: Eligible
    seen: Considered
    chosen: CostEstimate | None = None

    def __iter__(self) -> Iterator[Verdict]:
        """The cheapest first, then those that were not compared."""
        parts = self.seen.all()
        best = self.chosen or (parts[0] if parts else None)
        for each in parts:
            to = self.able.by_lane[each.lane.name]
            yield Verdict(candidate=to, reason=self._reason(each, best), parts=each)
        for to, why in self.able.spared:
            yield Verdict(candidate=to, reason=f"left alone: {why}")
        yield from self.able.sifted.out

    def _reason(self, each: CostEstimate, best: CostEstimate | None) -> str | None:
        if best is None or each is self.chosen:
            return None
        if each is best:
            return f"the best, but its next slot comes free in {each.wait:.1f} s"
        more = f"{each.cost:.2f} against {best.cost:.2f} s"
        least = "" if each.exact else "at least "
        return f"{'is busy and ' if each.wait > 0 else ''}costs more: {least}{more}"
