from __future__ import annotations

from msgspec.structs import replace

from balancer.prediction.conditions import Serving
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.prefix_cache import PrefixCacheIndex
from balancer.prediction.speed import Sample, Speed
from tests.balancer.engine_models import GPU, LAPTOP, PI, an_engine_model

CACHE_INDEX = PrefixCacheIndex()


def new(speed: Speed) -> EngineModel:
    return an_engine_model(CACHE_INDEX, "new", speed)


def measured(speed: Speed) -> EngineModel:
    engine = an_engine_model(CACHE_INDEX, "known", speed)
    engine.learner.learn(
        Sample(
            cached=0,
            prompt=128,
            prompt_ms=128e3 * speed.prefill,
            predicted=16,
            predicted_ms=15e3 * speed.decode,
        )
    )
    return engine


def test_an_engine_alone_serves_though_it_was_not_measured() -> None:
    engine = new(PI)

    assert not Serving([engine]).better_than(engine)


def test_a_newcomer_leaves_requests_to_one_that_was_measured() -> None:
    assert Serving([measured(LAPTOP)]).better_than(new(LAPTOP))
    assert Serving([measured(GPU)]).better_than(new(PI))


def test_one_that_looks_far_faster_than_the_measured_ones_serves_at_once() -> None:
    assert not Serving([measured(PI)]).better_than(new(GPU))


def test_among_unmeasured_engines_only_one_far_slower_gets_nothing() -> None:
    engines = [new(GPU), new(LAPTOP), new(PI)]

    assert [Serving(engines).better_than(engine) for engine in engines] == [
        False,
        True,
        True,
    ]
    assert not Serving([new(replace(LAPTOP, prefill=1 / 400))]).better_than(new(LAPTOP))


def test_an_engine_of_another_model_does_not_count() -> None:
    other = measured(GPU)
    other.model = "another"

    assert not Serving([other]).better_than(new(PI))
