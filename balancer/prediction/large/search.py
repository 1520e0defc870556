"""Search: the cheapest of many engines, without a look at each. Pure.

Two lists hold the engines by what a token to read and a token to write costs there at
least, as things stand. They are walked side by side, from the cheapest on. No engine
that comes later in both can cost less than the two prices there tell; once that is no
better than the best one found, the walk ends (the threshold algorithm of Fagin, Lotem
and Naor, 2001). Engines that hold a part of the prompt are looked at before.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf

from balancer.prediction.cost import Considered, CostEstimate, cheapest, examined
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.slot_match import RequestFeatures

MANY = 64
"""Of fewer engines each is looked at, which takes less time than the lists."""

HOLDERS = 32
"""Where more slots hold a part of the prompt, such as a system prompt of all clients,
these engines are not looked at before the others."""

Priced = tuple[float, int]
"""A price and the number of an engine."""

Prices = tuple[float, float, float]


class RankedEngines:
    """Engines with the order of their prices, kept up to date from the change log."""

    def __init__(self, engines: Sequence[EngineModel]) -> None:
        self._engines = engines
        self._number = {engine: at for at, engine in enumerate(engines)}
        self._log = engines[0].cache_index.log
        self._position = -1
        self._prices: list[Prices] = []
        self._reading: list[Priced] = []
        self._writing: list[Priced] = []
        self._full: list[Priced] = []
        self._least: Prices = (0.0, 0.0, 0.0)
        self._pending: list[EngineModel] = []
        self._whole = [engine for engine in engines if engine.host is not None]

    def cheapest(
        self, features: RequestFeatures, refreshed: set[str]
    ) -> tuple[CostEstimate | None, Considered]:
        """Return the engine that costs least, as `cost.cheapest` does, and those seen.

        Engines in `refreshed` are left as they are; see `Dispatcher.assign`.
        """
        self._catch_up(features.now, refreshed)
        look = _Look(features, refreshed)
        shared, first = self._holders(features)
        for engine in first:
            look.at(engine)
        self._walk(features, look, max(1.0, features.tokens - shared))
        self._walk_full(features, look)
        return look.best, look.considered

    def _walk(self, features: RequestFeatures, look: _Look, fresh: float) -> None:
        """Look at engines with a free slot; the holders have to read `fresh` tokens."""
        tokens, touched, others = features.tokens, features.touched, True
        overhead, answer, prices = self._least[2], features.answer, self._prices
        for (read, one), (write, other) in zip(
            self._reading, self._writing, strict=True
        ):
            rest, least = overhead + answer * write, look.least
            if rest + fresh * read >= least:
                return
            others = others and rest + tokens * read < least
            for number in (one, other):
                engine = self._engines[number]
                holds = engine.mask & touched
                if not (others or holds):
                    continue
                price = prices[number]
                own = (fresh if holds else tokens) * price[0] + answer * price[1]
                if overhead + own < least:
                    look.at(engine)

    def _walk_full(self, features: RequestFeatures, look: _Look) -> None:
        """Look at engines without a free slot, the next to come free first."""
        read, write, overhead = self._least
        for frees, number in self._full:
            wait = max(0.0, frees - features.now)
            least = overhead + wait + read + features.answer * write
            if least >= look.least:
                return
            look.at(self._engines[number])

    def _holders(self, features: RequestFeatures) -> tuple[float, list[EngineModel]]:
        """Return the engines to look at first; most tokens that others hold."""
        owners, found = features.cache_index.owners, list(self._whole)
        if features.hint >= 0:
            found += self._of(owners, 1 << features.hint)
        for (_, mask), most in zip(features.levels, features.most, strict=True):
            if mask.bit_count() > HOLDERS:
                return most, found
            found += self._of(owners, mask)
        return 0.0, found

    def _of(self, owners: Mapping[int, object], mask: int) -> Iterator[EngineModel]:
        while mask:
            owner = owners.get((mask & -mask).bit_length() - 1)
            mask &= mask - 1
            if isinstance(owner, EngineModel) and owner in self._number:
                yield owner

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
            self._rank()
        else:
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
        read, write, frees = prices
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

    __slots__ = ("_features", "_refreshed", "_seen", "best", "considered", "least")

    def __init__(self, features: RequestFeatures, refreshed: set[str]) -> None:
        self._features = features
        self._refreshed = refreshed
        self._seen = set[EngineModel]()
        self.best: CostEstimate | None = None
        self.least = inf
        self.considered: Considered = []

    def at(self, engine: EngineModel) -> None:
        """Examine an engine, once."""
        if engine in self._seen:
            return
        self._seen.add(engine)
        _refresh(engine, self._refreshed, self._features.now)
        found = examined(self._features, engine, self.least)
        self.considered.append(found)
        if isinstance(found, CostEstimate) and found.cost < self.least:
            self.best, self.least = found, found.cost


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
    """Return the least that a token to read and one to write cost; when it is free."""
    return engine.per_read * engine.read_price, engine.token_price, engine.free_at


def _refresh(engine: EngineModel, refreshed: set[str], now: float) -> None:
    if engine.name not in refreshed:
        refreshed.add(engine.name)
        engine.refresh(now)
