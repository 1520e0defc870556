"""Tuning run: search within a time, then compare the best with the untuned.

A result is written only when it is whole: a stopped tuning changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import CommandError, EngineUnavailable, in_words
from edgeserve.http import upstream
from edgeserve.reports.hardware import Hardware
from edgeserve.wire import Launch
from node.engines.find import options_of
from node.hardware.sample import Sampler
from node.models.drafts import drafts_for
from node.models.library import Model
from node.planning.fit import Fitted, fit
from node.planning.planner import PlannedEngine
from node.planning.prepare import Prepared, prepared
from node.planning.tunings import (
    Figures,
    Key,
    Result,
    Tuned,
    difference,
    save,
    tunings_of,
)
from node.tune.axes import axes
from node.tune.search import Search, Verdict, average, score, verdict
from node.tune.trial import Bench, Judge, TrialFailed, Work, work_for

TRIALS = 45
"""Trials for which a tuning plans its time."""

PAIRS, MOST_PAIRS = 3, 6
"""How often the best and the untuned settings are measured in turns at the end."""

HOPELESS = 0.8
"""Settings below this share of the untuned speed are measured only once."""

SPARE = 10.0
PATIENCE = 4.0
"""A trial may take SPARE seconds, and PATIENCE times the longest earlier trial."""


class NotMeasured(CommandError):
    """Not even the untuned settings could be measured."""


class TuningObserver(Protocol):
    """Observes a tuning's progress; it decides nothing."""

    def trying(self, changes: Tuned, confirming: bool) -> None:
        """These changes to the untuned settings are measured next."""

    def measured(
        self, changes: Tuned, found: Figures | str, gain: float | None
    ) -> None:
        """Figures, or why the engine failed; the gain is over the first measurement."""


class Measure(Protocol):
    """Runs an engine with a launch."""

    async def figures(
        self, launch: Launch, work: Work, seconds: float, hopeless: Judge
    ) -> Figures:
        """See `Bench.figures`. Raises TrialFailed."""
        ...


@dataclass
class Tuning:
    """One tuning, from `search` to `result`. `seconds` bounds it, load times and all.

    Only the trials that confirm a result may exceed it: two at least.
    """

    bench: Measure
    search: Search
    untuned: Launch
    seconds: float
    load_seconds: float
    observer: TuningObserver
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        """Start the clock."""
        self._end = self.clock() + self.seconds
        self._work = Work()
        self._durations: list[float] = []
        self._first: Figures | None = None
        self._all_tried = False

    async def result(self, key: Key) -> Result:
        """Return the best settings found, or the untuned ones if none is better.

        Raises NotMeasured.
        """
        await self._warmed_up()
        await self._searched()
        pairs = await self._confirmed()
        drafted = bool(self.search.best.draft)
        none = Verdict(0.0, accepted=False)
        found = verdict(pairs, drafted=drafted) if pairs else none
        untuned = average([each for each, _ in pairs]) if pairs else self.search.base
        assert untuned is not None  # noqa: S101 - the search has measured it
        best = average([each for _, each in pairs]) if found.accepted else untuned
        return Result(
            key=key,
            tuned=difference(self.untuned, self.search.best)
            if found.accepted
            else Tuned(),
            untuned=untuned,
            best=best,
            gain=found.gain if found.accepted else 0.0,
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            wanted=0.0 if self._all_tried else TRIALS * self._usual,
        )

    async def _warmed_up(self) -> None:
        """Measure roughly, to choose how much work a trial does."""
        try:
            rough = await self._figures(self.untuned, _never)
        except TrialFailed as error:
            raise NotMeasured(f"the untuned engine cannot be measured: {error}") from (
                error
            )
        self._work = work_for(rough, self.seconds / TRIALS)

    async def _searched(self) -> None:
        trials = self.search.trials()
        launch = next(trials)
        try:
            while self._time_for(2 * PAIRS + 1) or self.search.base is None:
                launch = trials.send(await self._tried(launch))
        except StopIteration:
            self._all_tried = True
        finally:
            trials.close()
        if self.search.base is None:
            raise NotMeasured("the untuned engine cannot be measured")

    async def _confirmed(self) -> list[tuple[Figures, Figures]]:
        """Measure untuned and tuned in turns; empty where they are the same."""
        pairs: list[tuple[Figures, Figures]] = []
        best = self.search.best
        if best == self.untuned:
            return pairs
        while len(pairs) < PAIRS or (len(pairs) < MOST_PAIRS and self._time_for(2)):
            untuned = await self._tried(self.untuned, confirming=True)
            tuned = await self._tried(best, confirming=True)
            if untuned is None or tuned is None:
                return []
            pairs.append((untuned, tuned))
        return pairs

    def _time_for(self, trials: int) -> bool:
        return self.clock() + trials * self._usual < self._end

    @property
    def _usual(self) -> float:
        """Seconds that a trial takes; 0 before there was one."""
        return sum(self._durations) / max(1, len(self._durations))

    async def _tried(
        self, launch: Launch, *, confirming: bool = False
    ) -> Figures | None:
        changes = difference(self.untuned, launch)
        self.observer.trying(changes, confirming)
        began = self.clock()
        try:
            judge = _never if confirming else self._hopeless
            found = await self._figures(launch, judge)
        except TrialFailed as error:
            self.observer.measured(changes, str(error), None)
            return None
        self._durations.append(self.clock() - began)
        self._first = self._first or found
        self.observer.measured(changes, found, score(found, self._first) - 1)
        return found

    async def _figures(self, launch: Launch, hopeless: Judge) -> Figures:
        longest = max(self._durations, default=0.0)
        limit = SPARE + PATIENCE * longest if longest else self.load_seconds
        return await self.bench.figures(launch, self._work, limit, hopeless)

    def _hopeless(self, found: Figures) -> bool:
        return self._first is not None and score(found, self._first) < HOPELESS


def _never(_found: Figures) -> bool:
    """Never stop early: compared figures need the same number of rounds."""
    return False


CONNECT_SECONDS = 5.0


class NothingToTune(CommandError):
    """No such model can run here; the message says why."""

    exit_status = 2


class ResultNotSaved(CommandError):
    """The result cannot be written; the message shows it."""


async def tuned(
    settings: NodeSettings, seconds: float, observer: TuningObserver
) -> list[Result]:
    """Tune every variant that the settings name, one after the other.

    Raises NothingToTune, EngineUnavailable, NotMeasured and ResultNotSaved.
    """
    settings = replace(settings, embedding_models=(), rerank_models=())
    hardware = await asyncio.to_thread(Sampler())
    found = await asyncio.to_thread(prepared, settings, hardware, untuned=True)
    problems = "; ".join(found.plan.problems)
    if found.engine is None:
        raise EngineUnavailable(problems)
    if not found.plan.engines:
        raise NothingToTune(problems)
    variants = {each.spec.variant: each for each in found.plan.engines}
    return [
        await _tuned(
            await asyncio.to_thread(_with_drafts, each, found.plan.models),
            *(found, settings, hardware, seconds, observer),
        )
        for each in variants.values()
    ]


def _with_drafts(planned: PlannedEngine, models: Iterable[Model]) -> PlannedEngine:
    """Add the models of the folder that can draft for it."""
    by_path = {each.path: each for each in models}
    target = by_path.get(planned.spec.path)
    drafts = drafts_for(target, by_path.values()) if target else {}
    paths = {variant: facts.path for variant, facts in drafts.items()}
    return replace(
        planned,
        load=replace(planned.load, drafts=drafts),
        spec=replace(planned.spec, drafts=paths),
    )


async def _tuned(
    planned: PlannedEngine,
    found: Prepared,
    settings: NodeSettings,
    hardware: Hardware,
    seconds: float,
    observer: TuningObserver,
) -> Result:
    engine = found.engine_of(planned)
    spec, untuned = planned.spec, planned.spec.launch
    devices = () if planned.engine else found.devices
    tunings = tunings_of(engine, hardware, devices, settings)
    options = await asyncio.to_thread(options_of, engine)
    tried = axes(untuned, hardware.cpu, settings, options, spec.drafts)
    async with upstream(connect_seconds=CONNECT_SECONDS) as ask:
        tuning = Tuning(
            bench=Bench(engine, spec, ask, settings.state_dir),
            search=Search(untuned, tried, _fitting(planned, settings)),
            untuned=untuned,
            seconds=seconds,
            load_seconds=settings.load_seconds,
            observer=observer,
        )
        key = tunings.key(spec.variant, planned.load.facts.file_bytes, spec.role)
        result = await tuning.result(key)
    try:
        save(settings.state_dir, result)
    except OSError as error:
        raise ResultNotSaved(
            f"cannot save the result: {error.filename}: {in_words(error)};"
            f" it is: {result.summary}"
        ) from error
    return result


def _fitting(
    planned: PlannedEngine, settings: NodeSettings
) -> Callable[[Launch], bool]:
    """Return a check that the next start would use a launch, by today's memory."""

    def fits(launch: Launch) -> bool:
        changes = difference(planned.spec.launch, launch)
        found = fit(planned.load, settings, planned.room, changes)
        return isinstance(found, Fitted) and changes == difference(
            planned.fitted.launch, found.launch
        )

    return fits
