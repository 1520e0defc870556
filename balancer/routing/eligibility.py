"""Eligibility: which engines a policy chooses among, and why; cached. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from balancer.fleet.engines import Candidate
from balancer.prediction.cost import Parts, Seen
from balancer.prediction.engine_model import Lane
from balancer.prediction.fleet_model import Lanes
from balancer.routing.decision import Need, Refuse, Verdict
from balancer.routing.filters import Sifted, sift


@dataclass(frozen=True, slots=True)
class Able:
    """Who can serve a request now or soon: `lanes`, quick ones first.

    `by_lane` names the engine of each; `spared` could serve but are left alone.
    """

    sifted: Sifted
    lanes: tuple[Lane, ...]
    by_lane: dict[str, Candidate]
    spared: tuple[tuple[Candidate, str], ...]

    @property
    def measured(self) -> bool:
        """Whether every speed was measured: only then is a prediction a promise."""
        return all(lane.learner.calibrated for lane in self.lanes)


Key = tuple[object, ...]


@dataclass(slots=True)
class Filter:
    """Filters once for all needs that are alike, until the fleet changes."""

    lanes: Lanes
    candidates: Sequence[Candidate] = ()
    _shortest: int = 0
    _found: dict[Key, Able | Refuse] = field(default_factory=dict[Key, "Able | Refuse"])

    def told(self, candidates: Sequence[Candidate]) -> None:
        """The fleet changed."""
        self.candidates = candidates
        self._shortest = min((each.engine.context for each in candidates), default=0)
        self._found.clear()

    def able(self, need: Need) -> Able | Refuse:
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

    def _sifted(self, need: Need) -> Able | Refuse:
        sifted = sift(self.candidates, need)
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
        return Able(sifted, tuple(lanes), by_lane, spared)


@dataclass(frozen=True, slots=True)
class Weighed:
    """Every candidate's verdict, worked out when somebody looks.

    `chosen` is None for a request that waits or was turned away.
    """

    able: Able
    seen: Seen
    chosen: Parts | None = None

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

    def _reason(self, each: Parts, best: Parts | None) -> str | None:
        if best is None or each is self.chosen:
            return None
        if each is best:
            return f"the best, but its next slot comes free in {each.wait:.1f} s"
        more = f"{each.cost:.2f} against {best.cost:.2f} s"
        least = "" if each.exact else "at least "
        return f"{'is busy and ' if each.wait > 0 else ''}costs more: {least}{more}"
