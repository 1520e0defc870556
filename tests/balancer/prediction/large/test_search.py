"""The search finds what a look at each engine finds, and looks at few."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from balancer.dialects.prompt import read
from balancer.prediction.cost import CostEstimate, cheapest
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.large.changes import ChangeLog
from balancer.prediction.large.search import MANY, RankedEngines, find_cheapest, ranked
from balancer.prediction.learning import SpeedLearner
from balancer.prediction.prefix_cache import CachedPrefix
from balancer.prediction.running import RunningRequest
from balancer.prediction.speed import Speed
from balancer.routing.decision import RoutingRequest
from balancer.routing.dispatcher import Dispatcher
from balancer.routing.queued_request import QueuedRequest, ignore

ENGINES = 150


def a_fleet(
    rng: random.Random, engines: int = ENGINES, *, alike: bool = False
) -> tuple[Dispatcher, list[EngineModel]]:
    """Return a dispatcher and its engines, idle and empty, of unlike speed or alike."""
    found: list[EngineModel] = []
    dispatcher = Dispatcher(lambda _: searched)
    for number in range(engines):
        speed = Speed(prefill=0.01, attention=1e-7, decode=0.05, slowdown=0.3)
        if not alike:
            rate = rng.choice([25, 120, 400, 2000])
            speed = Speed(
                prefill=rng.uniform(0.8, 1.2) / rate,
                attention=1e-7,
                decode=rng.uniform(2, 8) / rate,
                slowdown=0.3,
                overhead=rng.uniform(0.001, 0.01),
                few_start=rng.choice([0.0, 0.01]),
            )
        found.append(
            EngineModel(
                name=f"n{number}",
                model="m",
                slots=2 if alike else rng.choice([1, 2, 4]),
                learner=SpeedLearner(speed),
                cache_index=dispatcher.cache_index,
            )
        )
    found.sort(key=lambda engine: engine.per_read)
    searched = ranked(found)
    return dispatcher, found


def a_request(rng: random.Random) -> QueuedRequest:
    """Return a chat that shares its system prompt with others, and maybe more."""
    system = f"You are helper {rng.randrange(3)}. " + "xyz " * 200
    turns = "".join(f"turn {each} " * 60 for each in range(rng.randrange(6)))
    text = f'[{{"role":"system","content":"{system}"}},{{"role":"user","content":"'
    text += f'{rng.randrange(30)} {turns}"}}]'
    prompt = read(f'{{"model":"m","messages":{text}}}'.encode())
    routing = RoutingRequest(model="m", ability="chat", prompt=prompt, client="c")
    return QueuedRequest(routing, ignore, 0.0, slots=rng.choice([1, 1, 1, 2]))


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_the_search_chooses_as_a_look_at_each_engine_does(
    seed: int, alike: bool
) -> None:
    rng = random.Random(seed)  # noqa: S311 - a test
    dispatcher, engines = a_fleet(rng, alike=alike)
    dispatcher.order.work = rng.choice([0.0, 0.3, 5.0])
    running: list[tuple[EngineModel, RunningRequest]] = []
    now, load = 1.0, rng.choice([20, 150, 400])
    for number in range(500):
        now += rng.expovariate(20)
        # Now and then most conversations become too old to be continued.
        now += 300.0 if number % 100 == 99 else 0.0
        request, refreshed = a_request(rng), set[str]()
        features = dispatcher.features(request, now)
        found, _ = find_cheapest(features, dispatcher.eligible(request), refreshed)
        for engine in engines:
            if engine.name not in refreshed:
                engine.refresh(now)
        wanted, _ = cheapest(features, engines)

        assert found is not None
        assert wanted is not None
        assert found.cost == wanted.cost
        assert found.engine is wanted.engine

        dispatcher.cache_index.supersede(features.prompt)
        if found.wait or found.slot < 0:
            found.engine.reserve(now, found.work)
            found.engine.release()
        else:
            running.append((found.engine, _sent(request, found.slot, found, now)))
        if len(running) > load:
            engine, work = running.pop(rng.randrange(len(running)))
            engine.wrote(work, now)
            engine.end(work, now, rng.randrange(1, 300))


def _sent(
    request: QueuedRequest, slot: int, found: CostEstimate, now: float
) -> RunningRequest:
    work = RunningRequest(
        prompt=request.routing.prompt,
        slot=slot,
        tokens=found.tokens,
        cached=found.cached,
        answer=200.0,
        started=now,
        reading=found.read,
    )
    found.engine.start(work, now)
    return work


def test_an_idle_fleet_is_hardly_looked_at() -> None:
    rng = random.Random(1)  # noqa: S311 - a test
    dispatcher, _ = a_fleet(rng, 1000)
    request = a_request(rng)

    _, looked = dispatcher.weigh(request, 1.0)

    assert len(looked) < 100


def test_engines_that_hold_the_same_system_prompt_are_hardly_looked_at() -> None:
    rng = random.Random(1)  # noqa: S311 - a test
    dispatcher, engines = a_fleet(rng, 1000)
    for engine in engines:
        for place in engine.places:
            prompt = a_request(rng).routing.prompt
            content = CachedPrefix(prompt, 1000, 100.0, rng.random())
            dispatcher.cache_index.put(place, content)

    looked = [len(dispatcher.weigh(a_request(rng), 2.0)[1]) for _ in range(50)]

    assert sum(looked) < 40 * len(looked)


def test_few_engines_are_all_looked_at_so_that_each_can_be_explained() -> None:
    rng = random.Random(1)  # noqa: S311 - a test
    dispatcher, _ = a_fleet(rng, MANY)
    request = a_request(rng)

    _, looked = dispatcher.weigh(request, 1.0)

    assert not isinstance(dispatcher.eligible(request), RankedEngines)
    assert len(looked) == MANY


def test_a_reader_of_the_log_that_lags_too_far_is_told_so() -> None:
    log, position = ChangeLog(), 0
    for number in range(log.KEPT + 1):
        log.note(number)
        assert log.since(position) == {number}
        position = log.position

    assert log.since(0) is None
    assert log.since(log.position) == set()


def test_a_log_that_is_never_read_does_not_grow() -> None:
    _, [engine, *_] = a_fleet(random.Random(1), 2)  # noqa: S311 - a test
    tracemalloc.start()
    try:
        for now in range(20_000):
            engine.advance(now)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 50_000


def test_an_engine_that_left_is_not_kept() -> None:
    rng = random.Random(1)  # noqa: S311 - a test
    dispatcher, [engine, other] = a_fleet(rng, 2)
    engine.advance(1.0)
    engine.remove()
    index = dispatcher.cache_index

    assert index.log.since(0) == {other}
    assert engine not in index.owners.values()
