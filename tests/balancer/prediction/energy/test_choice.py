from __future__ import annotations

import random

import pytest

from balancer.prediction.cost import CostEstimate
from balancer.prediction.energy.choice import PREFERENCES, finder
from balancer.prediction.large.search import find_cheapest
from balancer.prediction.speed import Speed
from balancer.routing.affinity import is_worth_keeping
from tests.balancer.engine_models import LAPTOP, PI, Fleet, a_prompt, a_request

WATTS = {"gpu": 270.0, "laptop": 15.0, "pi": 5.0}
QUICK = Speed(prefill=1 / 600, attention=1e-8, decode=1 / 40, slowdown=0.08)


def a_house(prefer: str, **watts: float) -> Fleet:
    house = Fleet(gpu=(QUICK, 2), laptop=(LAPTOP, 2), pi=(PI, 1))
    house.dispatcher.find = finder(prefer, is_worth_keeping)
    for name, taken in watts.items():
        house.engines[name].watts = taken
    return house


def chosen(house: Fleet, answer: float) -> tuple[CostEstimate, CostEstimate]:
    """Return what is chosen, and the fastest."""
    request = a_request(a_prompt(b"hello"), 0.0, answer=answer)
    best, _ = house.dispatcher.weigh(request, 0.0)
    features = house.dispatcher.features(request, 0.0)
    fastest, _ = find_cheapest(features, [*house.engines.values()], set())
    assert best is not None
    assert fastest is not None
    return best, fastest


def test_with_speed_the_search_is_the_same_function() -> None:
    assert finder("speed", is_worth_keeping) is find_cheapest


def test_with_energy_the_frugal_machine_answers_if_it_is_quick_enough() -> None:
    best, fastest = chosen(a_house("energy", **WATTS), answer=50)

    assert fastest.engine.name == "gpu"
    assert best.engine.name == "laptop"
    assert best.joules < fastest.joules


@pytest.mark.parametrize("prefer", PREFERENCES)
def test_no_request_comes_later_than_the_bound(prefer: str) -> None:
    bound, chance = PREFERENCES[prefer], random.Random(4)  # noqa: S311
    others = 0
    for _ in range(200):
        watts = {name: chance.uniform(1, 400) for name in WATTS}
        best, fastest = chosen(a_house(prefer, **watts), chance.uniform(1, 400))
        ends = [each.first + each.write for each in (best, fastest)]
        others += best.engine is not fastest.engine

        assert best.first <= bound.factor * fastest.first + bound.seconds
        assert ends[0] <= bound.factor * ends[1] + bound.seconds
    assert others


def test_a_request_never_waits_for_a_slot_to_save_energy() -> None:
    house = a_house("energy", gpu=270.0, laptop=0.001, pi=5.0)
    for _ in range(2):
        house.asks(a_prompt(b"before"), answer=50.0)
        house.assigns(0.0)
    best, _ = chosen(house, answer=50)

    assert house.engines["laptop"].taken == 2, "the two before took its slots"
    assert best.wait == 0
    assert best.engine.name == "gpu"


def test_why_says_what_each_would_take() -> None:
    house = a_house("energy", **WATTS)
    best, _ = chosen(house, answer=50)

    assert best.joules == pytest.approx(15.0 * (best.read + best.write))
