"""The decision skips engines that cannot win; it must never skip the one that wins."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.dialects.prompt import Prompt, chain
from balancer.prediction.cost import cheapest, estimates
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.learning import SpeedLearner
from balancer.prediction.running import RunningRequest
from balancer.prediction.speed import Speed
from balancer.prediction.weights import lateness
from balancer.routing.dispatcher import Dispatcher
from tests.balancer.engine_models import GPU, LAPTOP, PI, Fleet, a_request

NOW = 50.0


def some_prompt(rng: random.Random) -> Prompt:
    words = [b"a" * 900, b"b" * 200, b"c" * 2000, b"d" * 50]
    return chain([rng.choice(words) for _ in range(rng.randint(1, 6))])


def some_fleet(rng: random.Random) -> tuple[Dispatcher, list[EngineModel]]:
    engines: list[EngineModel] = []
    dispatcher = Dispatcher(lambda _: engines)
    dispatcher.order.work = rng.choice([0.0, 3.0])
    for number in range(rng.randint(1, 8)):
        speed: Speed = rng.choice([GPU, LAPTOP, PI])
        pins = rng.random() < 0.7
        engine = EngineModel(
            name=f"n{number}",
            model="m",
            slots=rng.randint(1, 4),
            learner=SpeedLearner(speed),
            cache_index=dispatcher.cache_index,
            pins=pins,
            scale=rng.choice([1.0, 1.5]),
        )
        engines.append(engine)
        for slot in range(engine.slots):
            _fill(engine, slot, rng)
        for _ in range(rng.randint(0, 2)):
            engine.reserve(
                NOW, rng.random() * 5
            ) if engine.taken == engine.slots else None
    return dispatcher, engines


def _fill(engine: EngineModel, slot: int, rng: random.Random) -> None:
    if rng.random() < 0.3:
        return
    prompt, begin = some_prompt(rng), rng.random() * NOW
    tokens = prompt.size * rng.uniform(0.2, 0.3)
    job = RunningRequest(
        prompt=prompt,
        slot=slot,
        tokens=tokens,
        cached=0.0,
        answer=100.0,
        started=begin,
        reading=1.0,
    )
    engine.start(job, begin)
    if rng.random() < 0.5:
        engine.wrote(job, begin + 1)
    if rng.random() < 0.6:
        engine.end(job, begin + 2, 60.0)


@settings(max_examples=300)
@given(st.integers(0, 10**9), st.integers(1, 1))
def test_the_engine_that_costs_least_of_all_is_found(seed: int, slots: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - hypothesis chooses the seed
    dispatcher, engines = some_fleet(rng)
    features = dispatcher.features(
        a_request(some_prompt(rng), NOW, "m", slots=slots), NOW
    )

    best, considered = cheapest(features, engines)

    one_by_one = [cheapest(features, [engine])[0] for engine in engines]
    assert best is not None
    assert best.cost == min(each.cost for each in one_by_one if each)
    assert {each.engine.name for each in estimates(considered)} == {
        engine.name for engine in engines
    }


@given(st.integers(0, 10**9))
def test_no_part_of_a_prediction_is_negative(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - hypothesis chooses the seed
    dispatcher, engines = some_fleet(rng)

    request = a_request(some_prompt(rng), NOW, "m")
    _, considered = cheapest(dispatcher.features(request, NOW), engines)

    for each in estimates(considered):
        estimate = (
            each.wait,
            each.ahead,
            each.read,
            each.write,
            each.loss,
            each.cached,
        )
        assert min(estimate) >= 0
        assert each.cost > 0
        assert each.cached < each.tokens


def test_without_engines_there_is_no_choice() -> None:
    dispatcher = Dispatcher(lambda _: [])

    assert dispatcher.choose(a_request(chain([b"x"]), 0.0, "m"), 0.0) is None


def test_the_later_a_first_token_comes_the_more_a_second_costs() -> None:
    fleet = Fleet(one=(LAPTOP, 1))
    request = fleet.asks(chain([b"question" * 500]))
    before = fleet.dispatcher.choose(request, 0.0)

    fleet.dispatcher.order.work = 2.0
    after = fleet.dispatcher.choose(request, 0.0)

    assert before is not None
    assert after is not None
    late = lateness(2.0) * after.first**2
    assert after.cost - before.cost == pytest.approx(late)
    assert late > 0.1
