"""Scaling view: what the autoscaler is told of each model, from the predictions. Pure.

Looked at once a second, so that no request pays for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heapreplace

import msgspec

from balancer.fleet.engines import EngineKey
from balancer.lifecycle.scaling.rules import AbsentReplica, Replica, ScaledModel
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.running import RunningRequest
from balancer.prediction.speed import Speed
from balancer.prediction.workload import ANSWER_TOKENS

PROMPT_TOKENS = 256.0
"""Tokens that a usual prompt leaves to be read, before the first one was seen."""

LEARN = 0.1
"""The weight of each request in the mean lengths."""

MOST_AHEAD = 256
"""So many waiting requests are laid out; a longer queue waits in proportion."""


class SeenEngine(msgspec.Struct, frozen=True, kw_only=True):
    """One engine of the fleet. `loaded` is None while it loads.

    Engines that leave or have failed are left out. `engine` is what runs there, if it
    is loaded. `evicts` would leave for it.
    """

    key: EngineKey
    model: str
    slots: int
    speed: Speed
    loaded: bool | None
    engine: EngineModel | None = None
    load_seconds: float
    evicts: tuple[EngineKey, ...] = ()
    pinned: bool = False


Bounds = tuple[int, int | None]
"""The least and the most replicas of a model."""


class _Usual:
    """The mean lengths of a model's requests, in tokens; `looked` is the last look."""

    def __init__(self) -> None:
        self.prompt = PROMPT_TOKENS
        self.answer = ANSWER_TOKENS
        self.looked = 0.0

    def learn(self, running: Iterable[RunningRequest], now: float) -> None:
        """Take in the requests that have started since the last look."""
        for each in running:
            if each.started > self.looked:
                fresh = max(1.0, each.tokens - each.cached)
                self.prompt += LEARN * (fresh - self.prompt)
                self.answer += LEARN * (each.answer - self.answer)
        self.looked = now

    def seconds(self, speed: Speed, slots: int, scale: float = 1.0) -> float:
        """Return how long a usual request holds a slot, if all slots are busy."""
        read = speed.prefill_seconds(self.prompt, 0.0) * slots
        write = self.answer * speed.token_seconds(slots)
        return scale * (read + write) + speed.overhead


class ScalingView:
    """Remembers the usual request of each model, and when each engine last worked."""

    def __init__(self) -> None:
        self._usual: dict[str, _Usual] = {}
        self._worked: dict[EngineKey, float] = {}

    def look(
        self,
        seen: Sequence[SeenEngine],
        waiting: Mapping[str, int],
        limits: Mapping[str, Bounds],
        now: float,
    ) -> list[ScaledModel]:
        """Return every model as the autoscaler sees it; `waiting` counts by model."""
        self._worked = {
            each.key: now if _works(each) else self._worked.get(each.key, now)
            for each in seen
        }
        models = dict[str, list[SeenEngine]]()
        for each in seen:
            models.setdefault(each.model, []).append(each)
        self._usual = {model: self._usual.get(model) or _Usual() for model in models}
        return [
            self._model(
                model, engines, waiting.get(model, 0), limits.get(model, (0, None)), now
            )
            for model, engines in models.items()
        ]

    def _model(
        self,
        model: str,
        engines: Sequence[SeenEngine],
        waiting: int,
        limits: Bounds,
        now: float,
    ) -> ScaledModel:
        usual = self._usual[model]
        loaded = [each.engine for each in engines if each.loaded and each.engine]
        for engine in loaded:
            usual.learn(engine.load.requests.values(), now)
        return ScaledModel(
            model=model,
            wait=next_wait(loaded, usual, waiting, now),
            waiting=waiting,
            running=sum(engine.taken for engine in loaded),
            replicas=tuple(
                self._replica(each, usual, now)
                for each in engines
                if each.loaded is not False
            ),
            absent=tuple(
                AbsentReplica(
                    key=each.key,
                    slots=each.slots,
                    seconds=usual.seconds(each.speed, each.slots),
                    load_seconds=each.load_seconds,
                    evicts=each.evicts,
                )
                for each in engines
                if each.loaded is False
            ),
            least=limits[0],
            most=limits[1],
        )

    def _replica(self, each: SeenEngine, usual: _Usual, now: float) -> Replica:
        scale = each.engine.scale if each.engine else 1.0
        return Replica(
            key=each.key,
            slots=each.slots,
            seconds=usual.seconds(each.speed, each.slots, scale),
            load_seconds=each.load_seconds,
            idle_seconds=now - self._worked[each.key],
            loading=each.loaded is None,
            pinned=each.pinned,
        )


def _works(seen: SeenEngine) -> bool:
    return seen.engine is not None and bool(seen.engine.taken or seen.engine.queued)


def next_wait(
    engines: Sequence[EngineModel], usual: _Usual, waiting: int, now: float
) -> float:
    """Return how long a request that came now would wait for its slot.

    Those ahead are laid out over the engines, each to where it would end first.
    """
    if not engines:
        return 0.0
    lanes = [
        (usual.seconds(each.speed, each.slots, each.scale), _frees(each, now))
        for each in engines
    ]
    wait = 0.0
    for _ in range(min(waiting, MOST_AHEAD) + 1):
        seconds, frees = min(lanes, key=lambda lane: lane[0] + lane[1][0])
        wait = frees[0] - now
        heapreplace(frees, frees[0] + seconds)
    return wait * max(1.0, waiting / MOST_AHEAD)


def _frees(engine: EngineModel, now: float) -> list[float]:
    """Return when its slots come free, the first ones first; only the idle if any.

    Without reservations: those are for requests that wait, which are laid out anew.
    """
    engine.stale = True
    engine.refresh(now)
    idle = engine.slots - engine.taken
    if idle > 0:
        return [now] * idle
    return [
        max(now, engine.free(count)) for count in range(1, min(engine.slots, 32) + 1)
    ]
