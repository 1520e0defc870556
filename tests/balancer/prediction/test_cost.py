"""The decision skips engines that cannot win; it must never skip the one that would."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.dialects.prompt import Prompt, chain
from balancer.prediction.cost import cheapest
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.learning import SpeedLearner
from balancer.prediction.running import RunningRequest
from balancer.prediction.speed import Speed
from balancer.routing.dispatcher import Dispatcher
from tests.balancer.lanes import GPU, LAPTOP, PI, a_request

NOW = 50.0


def some_prompt(dice: random.Random) -> Prompt:
    words = [b"a" * 900, b"b" * 200, b"c" * 2000, b"d" * 50]
    return chain([dice.choice(words) for _ in range(dice.randint(1, 6))])


def some_fleet(dice: random.Random) -> tuple[Dispatcher, list[EngineModel]]:
    lanes: list[EngineModel] = []
    dispatcher = Dispatcher(lambda _: lanes)
    for number in range(dice.randint(1, 8)):
        speed: Speed = dice.choice([GPU, LAPTOP, PI])
        pins = dice.random() < 0.7
        lane = EngineModel(
            name=f"n{number}",
            model="m",
            slots=dice.randint(1, 4),
            learner=SpeedLearner(speed),
            holdings=dispatcher.holdings,
            pins=pins,
            scale=dice.choice([1.0, 1.5]),
        )
        lanes.append(lane)
        for slot in range(lane.slots):
            _fill(lane, slot, dice)
        for _ in range(dice.randint(0, 2)):
            lane.reserve(NOW, dice.random() * 5) if lane.taken == lane.slots else None
    return dispatcher, lanes


def _fill(lane: EngineModel, slot: int, dice: random.Random) -> None:
    if dice.random() < 0.3:
        return
    prompt, begin = some_prompt(dice), dice.random() * NOW
    tokens = prompt.size * dice.uniform(0.2, 0.3)
    job = RunningRequest(
        prompt=prompt,
        slot=slot,
        tokens=tokens,
        cached=0.0,
        answer=100.0,
        started=begin,
        reading=1.0,
    )
    lane.start(job, begin)
    if dice.random() < 0.5:
        lane.wrote(job, begin + 1)
    if dice.random() < 0.6:
        lane.end(job, begin + 2, 60.0)


@settings(max_examples=300)
@given(st.integers(0, 10**9), st.integers(1, 1))
def test_the_engine_that_costs_least_of_all_is_found(seed: int, slots: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - hypothesis chooses the seed
    dispatcher, lanes = some_fleet(dice)
    question = dispatcher.question(
        a_request(some_prompt(dice), NOW, "m", slots=slots), NOW
    )

    best, seen = cheapest(question, lanes)

    one_by_one = [cheapest(question, [lane])[0] for lane in lanes]
    assert best is not None
    assert best.cost == min(each.cost for each in one_by_one if each)
    assert {each.lane.name for each in seen.all()} == {lane.name for lane in lanes}


@given(st.integers(0, 10**9))
def test_no_part_of_a_prediction_is_negative(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - hypothesis chooses the seed
    dispatcher, lanes = some_fleet(dice)

    request = a_request(some_prompt(dice), NOW, "m")
    _, seen = cheapest(dispatcher.question(request, NOW), lanes)

    for each in seen.all():
        parts = (each.wait, each.ahead, each.read, each.write, each.loss, each.cached)
        assert min(parts) >= 0
        assert each.cost > 0
        assert each.cached < each.tokens


def test_without_engines_there_is_no_choice() -> None:
    dispatcher = Dispatcher(lambda _: [])

    assert dispatcher.choose(a_request(chain([b"x"]), 0.0, "m"), 0.0) is None
