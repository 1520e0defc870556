"""Choice by energy: of the engines that could answer now, the frugal one. Pure.

The fastest engine is found as always. Another one that is free is taken instead where

    cost + price · joules

is less there, in seconds, and where neither its first token nor its last is predicted
to come later than a bound after the fastest one's. A request never waits for a slot to
save energy, and a conversation keeps its slot. Among more than 64 engines only those
are compared that the search for the fastest has looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from balancer.prediction.cost import Considered, CostEstimate, examined
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.large.search import Searched, find_cheapest
from balancer.prediction.slot_match import RequestFeatures


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """What a joule counts for, in seconds, and the bound on a request's delay.

    A token comes at most `factor` times as late as on the fastest engine, and `seconds`
    later.
    """

    price: float
    factor: float
    seconds: float

    def late(self, seconds: float, fastest: float) -> bool:
        """Whether a token comes too late, given both times."""
        return seconds > self.factor * fastest + self.seconds


PREFERENCES = {
    "balanced": Preference(price=0.05, factor=2.0, seconds=2.0),
    "energy": Preference(price=1.0, factor=3.0, seconds=5.0),
}
"""By the setting; `speed` has none."""

Found = tuple[CostEstimate | None, Considered]
Find = Callable[[RequestFeatures, Searched, set[str]], Found]
Keeps = Callable[[RequestFeatures, CostEstimate], bool]


@dataclass(frozen=True, slots=True)
class Frugal:
    """Finds the engine for a request. `keeps`: its slot is kept for a conversation."""

    preference: Preference
    keeps: Keeps

    def __call__(
        self, features: RequestFeatures, engines: Searched, refreshed: set[str]
    ) -> Found:
        """Return the engine, and what was found about those looked at."""
        fastest, considered = find_cheapest(features, engines, refreshed)
        if fastest is None or fastest.wait > 0 or fastest.slot < 0:
            return fastest, considered
        best, least = fastest, self._price(fastest)
        for at, bound in enumerate(considered):
            each = bound
            if not isinstance(each, CostEstimate):
                if each[2] > 0:
                    continue
                each = considered[at] = _exactly(features, each[0])
            if self._may(features, each, fastest) and self._price(each) < least:
                best, least = each, self._price(each)
        return best, considered

    def _price(self, each: CostEstimate) -> float:
        return each.cost + self.preference.price * each.joules

    def _may(
        self, features: RequestFeatures, each: CostEstimate, fastest: CostEstimate
    ) -> bool:
        """Whether it is free, and not too late."""
        if each is fastest or each.wait > 0 or each.slot < 0:
            return False
        late = self.preference.late
        if late(each.first, fastest.first):
            return False
        last, soonest = each.first + each.write, fastest.first + fastest.write
        return not late(last, soonest) and not self.keeps(features, each)


def _exactly(features: RequestFeatures, engine: EngineModel) -> CostEstimate:
    found = examined(features, engine, inf)
    assert isinstance(found, CostEstimate)  # noqa: S101 - nothing costs more than that
    return found


def finder(prefer: str, keeps: Keeps) -> Find:
    """Return what finds the engine of each request, by the setting."""
    preference = PREFERENCES.get(prefer)
    return find_cheapest if preference is None else Frugal(preference, keeps)
