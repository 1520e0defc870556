"""Search: the cheapest of many engines, without a look at each. Pure.

Two lists hold the engines by what a token to read and a token to write costs there at
least, as things stand. They are walked side by side, from the cheapest on. No engine
that comes later in both can cost less than the two prices there tell; once that is no
better than the best one found, the walk ends (the threshold algorithm of Fagin, Lotem
and Naor, 2001). Of the engines on the way only those are examined whose lower bound is
below that. Engines that hold a part of the prompt are looked at before.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf

from balancer.prediction.cost import Considered, CostEstimate, cheapest, examined
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.large.bound import LowerBound, Prices
from balancer.prediction.large.slot_costs import KeptSlotCosts
from balancer.prediction.slot_match import RequestFeatures

MANY = 64
"""Of fewer engines each is looked at, which takes less time than the lists."""

HOLDERS = 32
"""Where more slots hold a part of the prompt, such as a system prompt of all clients,
these engines are not looked at before the others."""

CHUNK = 8
"""Of so many engines at the head of each list the best by their lower bounds is looked
at first, then of twice as many, and so on."""

ROUNDING = 1e-9
"""More than what sums differ by that are added in another order, as a share."""

Priced = tuple[float, int]
"""A price and the number of an engine."""

Least = tuple[float, float, float]
"""The least that a token to read, one to write and the overhead cost on any engine."""


class RankedEngines:
    """Engines with the order of their prices, kept up to date from the change log."""

    def __init__(self, engines: Sequence[EngineModel]) -> None:
        self._engines = engines
        self._number: dict[object, int] = {
            engine: at for at, engine in enumerate(engines)
        }
        self._log = engines[0].cache_index.log
        self._position = -1
        self._prices: list[Prices] = []
        self._reading: list[Priced] = []
        self._writing: list[Priced] = []
        self._full: list[Priced] = []
        self._least: Least = (0.0, 0.0, 0.0)
        self._pending: list[EngineModel] = []
        self._whole = [
            number for number, engine in enumerate(engines) if engine.host is not None
        ]
        self._slot_costs = KeptSlotCosts(engines)

    def cheapest(
        self, features: RequestFeatures, refreshed: set[str]
    ) -> tuple[CostEstimate | None, Considered]:
        """Return the engine that costs least, as `cost.cheapest` does, and those seen.

        Engines in `refreshed` are left as they are; see `Dispatcher.assign`.
        """
        self._catch_up(features.now, refreshed)
        look = _Look(features, refreshed)
        before, first = self._holders(features)
        for number in dict.fromkeys(first):
            look.at(number, self._engines[number])
        held, most = 0, 0.0
        for _, mask in features.levels[before:]:
            held |= mask
        if held:
            most = features.most[before]
        costs = self._slot_costs.of(features, before)
        bound = LowerBound(features, costs, held, most)
        self._walk(look, bound)
        self._walk_full(look, held, bound.fresh)
        return look.best, look.considered

    def _walk(self, look: _Look, bound: LowerBound) -> None:
        """Look at engines with a free slot, more and more of them at once."""
        engines, prices, at, size = self._engines, self._prices, 0, CHUNK
        while at < len(self._reading):
            numbers = self._next(look, bound.fresh, at, at + size)
            if not numbers:
                return
            found = [
                (least + bound.more(engines[number]), number)
                for least, number in bound.by_price(
                    numbers - look.seen, prices, look.most - self._least[2]
                )
            ]
            look.seen |= numbers
            for least, number in sorted(found):
                if look.may_win(least, number):
                    look.at(number, engines[number])
            at, size = at + size, 2 * size

    def _next(self, look: _Look, fresh: float, begin: int, end: int) -> set[int]:
        """Return the engines in a part of the lists that could be better by price."""
        overhead, answer, found = self._least[2], look.features.answer, set[int]()
        pairs = zip(self._reading[begin:end], self._writing[begin:end], strict=True)
        low, add = look.low, found.add
        for (read, one), (write, other) in pairs:
            least = overhead + fresh * read + answer * write
            if least >= low and not look.may_win(least, min(one, other)):
                break
            add(one)
            add(other)
        return found

    def _walk_full(self, look: _Look, held: int, fresh: float) -> None:
        """Look at engines without a free slot, the next to come free first."""
        features, least = look.features, self._least
        now, tokens, answer = features.now, features.tokens, features.answer
        for frees, number in self._full:
            wait = max(0.0, frees - now)
            if least[2] + wait + least[0] + answer * least[1] > look.least:
                return
            engine, price = self._engines[number], self._prices[number]
            read = fresh if engine.mask & held else tokens
            cost = wait + read * price[0] + answer * price[1]
            if wait == 0.0 or look.may_win(cost, number):
                look.at(number, engine)

    def _holders(self, features: RequestFeatures) -> tuple[int, list[int]]:
        """Return the engines to look at first, of so many levels."""
        owners, found = features.cache_index.owners, list(self._whole)
        if features.hint >= 0:
            found += self._of(owners, 1 << features.hint)
        for at, (_, mask) in enumerate(features.levels):
            if mask.bit_count() > HOLDERS:
                return at, found
            found += self._of(owners, mask)
        return len(features.levels), found

    def _of(self, owners: Mapping[int, object], mask: int) -> Iterator[int]:
        while mask:
            number = self._number.get(owners.get((mask & -mask).bit_length() - 1))
            mask &= mask - 1
            if number is not None:
                yield number

    def _catch_up(self, now: float, refreshed: set[str]) -> None:
        """Bring the order up to date."""
        found = self._log.since(self._position)
        self._position = self._log.position
        numbers = self._number
        changed: Iterable[EngineModel] = self._engines
        if found is not None:
            entries = found.union(self._pending)
            changed = [
                e for e in entries if isinstance(e, EngineModel) and e in numbers
            ]
        for engine in changed:
            _refresh(engine, refreshed, now)
        # What was sent or reserved in this round counts in the next one.
        self._pending = [each for each in changed if each.stale or each.moved]
        if found is None:
            self._slot_costs.changed(None)
            self._rank()
            return
        self._slot_costs.changed([numbers[engine] for engine in changed])
        for engine in changed:
            self._move(numbers[engine], engine)

    def _rank(self) -> None:
        self._prices = [_prices(engine) for engine in self._engines]
        self._least = (
            min(engine.per_read for engine in self._engines),
            min(each[1] for each in self._prices),
            min(engine.speed.overhead for engine in self._engines),
        )
        self._reading.clear()
        self._writing.clear()
        self._full.clear()
        for number, prices in enumerate(self._prices):
            for entries, price in self._lists(prices):
                entries.append((price, number))
        for entries in (self._reading, self._writing, self._full):
            entries.sort()

    def _lists(self, prices: Prices) -> tuple[tuple[list[Priced], float], ...]:
        """Return the lists that an engine belongs to, and its price in each."""
        read, write, _, frees = prices
        if frees > 0.0:
            return ((self._full, frees),)
        return (self._reading, read), (self._writing, write)

    def _move(self, number: int, engine: EngineModel) -> None:
        old, new = self._prices[number], _prices(engine)
        read, write, overhead = self._least
        self._least = (
            min(read, engine.per_read),
            min(write, new[1]),
            min(overhead, engine.speed.overhead),
        )
        if old == new:
            return
        self._prices[number] = new
        for entries, price in self._lists(old):
            del entries[bisect_left(entries, (price, number))]
        for entries, price in self._lists(new):
            insort(entries, (price, number))


class _Look:
    """What was found so far, and whose forecasts are renewed."""

    __slots__ = (
        "_number",
        "_refreshed",
        "best",
        "considered",
        "features",
        "least",
        "low",
        "most",
        "seen",
    )

    def __init__(self, features: RequestFeatures, refreshed: set[str]) -> None:
        self.features = features
        self._refreshed = refreshed
        self.seen = set[int]()
        self.best: CostEstimate | None = None
        self.least = self.low = self.most = inf
        self._number = -1
        self.considered: Considered = []

    def may_win(self, least: float, number: int) -> bool:
        """Whether an engine with that bound can be the best; of equal ones the first.

        What differs by no more than rounding counts as equal.
        """
        return least < self.low or (number < self._number and least <= self.most)

    def at(self, number: int, engine: EngineModel) -> None:
        """Examine an engine."""
        self.seen.add(number)
        _refresh(engine, self._refreshed, self.features.now)
        found = examined(self.features, engine, self.least)
        self.considered.append(found)
        if not isinstance(found, CostEstimate) or found.cost > self.least:
            return
        if found.cost < self.least or number < self._number:
            self.best, self.least, self._number = found, found.cost, number
            self.low = found.cost * (1 - ROUNDING)
            self.most = found.cost * (1 + ROUNDING)


Searched = Sequence[EngineModel] | RankedEngines
"""Engines among which the cheapest is found: few of them, or many with their order."""


def ranked(engines: Sequence[EngineModel]) -> Searched:
    """Return the engines, with their order where there are many."""
    return RankedEngines(engines) if len(engines) > MANY else engines


def find_cheapest(
    features: RequestFeatures, engines: Searched, refreshed: set[str]
) -> tuple[CostEstimate | None, Considered]:
    """Return the engine that costs least, and what was found about those looked at.

    The forecasts of engines that are not in `refreshed` are renewed first.
    """
    if isinstance(engines, RankedEngines):
        return engines.cheapest(features, refreshed)
    for engine in engines:
        _refresh(engine, refreshed, features.now)
    return cheapest(features, engines)


def _prices(engine: EngineModel) -> Prices:
    """Return what the order depends on."""
    price = engine.read_price
    return (
        engine.per_read * price,
        engine.token_price,
        engine.per_context * price,
        engine.free_at,
    )


def _refresh(engine: EngineModel, refreshed: set[str], now: float) -> None:
    if engine.name not in refreshed:
        refreshed.add(engine.name)
        engine.refresh(now)
