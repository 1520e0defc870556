"""Builders of engine models and requests for tests of routing and prediction."""

from collections.abc import Sequence
from typing import Any

from balancer.dialects.prompt import Prompt, chain
from balancer.dialects.timings import Timings
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.learning import SpeedLearner
from balancer.prediction.prefix_cache import CachedPrefix, PrefixCacheIndex
from balancer.prediction.speed import Speed
from balancer.routing.decision import RoutingRequest
from balancer.routing.dispatcher import Assignment, Dispatcher, TurnedAway
from balancer.routing.queued_request import QueuedRequest
from tests.balancer.building import unheard

GPU = Speed(prefill=1 / 2000, attention=1e-8, decode=1 / 90, slowdown=0.08)
LAPTOP = Speed(prefill=1 / 150, attention=1e-7, decode=1 / 20, slowdown=0.3)
PI = Speed(prefill=1 / 25, attention=1e-6, decode=1 / 6, slowdown=0.3)

SYSTEM = b"s" * 2000
"""A system prompt of 500 tokens at four bytes each."""


def a_prompt(*estimate: bytes) -> Prompt:
    return chain([SYSTEM, *estimate])


def an_engine_model(
    cache_index: PrefixCacheIndex,
    name: str,
    speed: Speed = LAPTOP,
    slots: int = 1,
    pins: bool = True,
) -> EngineModel:
    return EngineModel(
        name=name,
        model="model",
        slots=slots,
        learner=SpeedLearner(speed),
        cache_index=cache_index,
        pins=pins,
    )


def a_request(
    prompt: Prompt,
    now: float,
    model: str = "model",
    answer: float | None = None,
    **routing: Any,
) -> QueuedRequest:
    asks = RoutingRequest(model=model, ability="chat", prompt=prompt, **routing)
    request = QueuedRequest(asks, unheard, now)
    request.answer = answer
    return request


class Fleet:
    """A dispatcher over a few engines, and the events that their streams would give."""

    def __init__(self, queue: int = 256, **speeds: tuple[Speed, int]) -> None:
        self.dispatcher = Dispatcher(self._eligible)
        self.queue = queue
        self.waiting: dict[QueuedRequest, None] = {}
        self.engines = {
            name: an_engine_model(self.dispatcher.cache_index, name, speed, slots)
            for name, (speed, slots) in speeds.items()
        }

    def _eligible(
        self,
        request: QueuedRequest,  # noqa: ARG002 - all can
    ) -> Sequence[EngineModel]:
        return list(self.engines.values())

    def asks(
        self,
        prompt: Prompt,
        now: float = 0.0,
        *,
        client: str = "",
        answer: float = 100.0,
        deadline: float | None = None,
        session: str = "",
        slots: int = 1,
    ) -> QueuedRequest:
        request = a_request(
            prompt,
            now,
            client=client,
            deadline=deadline,
            session=session,
            slots=slots,
            answer=answer,
        )
        assert self.offers(request, now) is None
        self.waiting[request] = None
        return request

    def offers(self, request: QueuedRequest, now: float) -> TurnedAway | None:
        full = len(self.waiting) >= self.queue
        return self.dispatcher.offer(request, now, full=full)

    def assigns(self, now: float) -> list[Assignment]:
        assignment = self.dispatcher.assign(self.waiting, now)
        for each in assignment:
            del self.waiting[each.request]
        return assignment

    def sends(
        self, prompt: Prompt, now: float = 0.0, answer: float = 100.0
    ) -> Assignment:
        self.asks(prompt, now, answer=answer)
        (assignment,) = self.assigns(now)
        return assignment

    def answers(
        self, assignment: Assignment, now: float, answer: int = 100
    ) -> list[Assignment]:
        """Let the engine do exactly what was predicted, until `now`."""
        engine = assignment.engine
        cached = int(assignment.cached)
        fresh = max(1, round(assignment.tokens) - cached)
        self.dispatcher.began(assignment, assignment.started, fresh + cached, cached)
        reading = engine.speed.prefill_seconds(fresh, cached)
        engine.wrote(assignment, assignment.started + reading)
        writing = 1000 * engine.speed.token_seconds(1) * (answer - 1)
        timings = Timings(cached, fresh, 1000 * reading, answer, writing)
        self.dispatcher.ended(assignment, now, timings)
        return self.assigns(now)

    def holds(self, name: str, slot: int, prompt: Prompt, since: float = 0.0) -> None:
        place = self.engines[name].places[slot]
        entry = CachedPrefix(prompt, prompt.size / 4 + 100, 100.0, since, since)
        self.dispatcher.cache_index.put(place, entry)
