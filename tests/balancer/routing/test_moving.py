"""A request leaves an engine only where that saves much of what is left."""

from __future__ import annotations

import pytest

from balancer.prediction.learning import SpeedLearner
from balancer.prediction.speed import Sample
from balancer.routing.dispatcher import Assignment
from balancer.routing.moving import pays, price, remaining
from tests.balancer.engine_models import GPU, LAPTOP, PI, Fleet, a_prompt

QUESTION = a_prompt(b"q" * 800)
"""700 tokens: 4.7 s at a laptop, 28 s at a Pi."""


@pytest.mark.parametrize(
    ("left", "there", "price", "worth"),
    [
        (10.0, 6.0, 0.0, True),
        (10.0, 6.1, 0.0, False),  # less than two fifths
        (10.0, 4.0, 3.0, False),  # others lose the rest
        (3.0, 1.0, 0.0, True),
        (2.9, 1.0, 0.0, False),  # less than two seconds
        (1.0, 0.0, 0.0, False),
        (60.0, 59.0, 0.0, False),
    ],
)
def test_a_move_saves_a_large_share_and_some_seconds(
    left: float, there: float, price: float, worth: bool
) -> None:
    assert pays(left, there, price) is worth


def running(answer: float = 100.0) -> Assignment:
    """A request that has just been sent to a laptop."""
    return Fleet(laptop=(LAPTOP, 2)).sends(QUESTION, answer=answer)


def test_before_anything_is_seen_the_prediction_holds() -> None:
    request = running()
    left = remaining(request, 0.0, quiet=0.0)

    predicted = request.estimate.read + request.estimate.write
    assert left.seconds == pytest.approx(predicted, rel=0.01)
    assert left.prompt == request.tokens
    assert left.answer == 100


def test_a_prompt_that_is_half_read_has_its_other_half_left() -> None:
    request = running()
    half = int(request.tokens / 2)
    took = request.estimate.read / 2

    left = remaining(request, took, read=half, read_seconds=took, quiet=0.0)

    reading = left.seconds - request.estimate.write
    assert reading == pytest.approx(request.estimate.read / 2, rel=0.1)


def test_a_prompt_that_is_read_slowly_goes_on_so() -> None:
    request = running()
    half = int(request.tokens / 2)

    left = remaining(request, 20.0, read=half, read_seconds=20.0, quiet=0.0)

    assert left.seconds == pytest.approx(20.0 + request.estimate.write, rel=0.01)


def test_a_batch_that_does_not_come_shows_a_slow_engine() -> None:
    request = running()
    expected = remaining(request, 0.0, quiet=0.0).seconds

    batch = request.engine.batch * LAPTOP.prefill
    late = remaining(request, 0.0, quiet=8 * batch).seconds

    assert late > 5 * expected


def test_a_batch_that_is_under_way_is_not_late() -> None:
    request = running()
    batch = request.engine.batch * LAPTOP.prefill

    left = remaining(request, batch, quiet=batch).seconds

    assert left < remaining(request, 0.0, quiet=0.0).seconds


def test_an_engine_that_may_work_unseen_is_given_the_predicted_time() -> None:
    request = running()
    whole = request.estimate.first + request.estimate.write

    assert remaining(request, whole / 2, quiet=None).seconds == pytest.approx(
        whole / 2, rel=0.01
    )
    assert remaining(request, 10 * whole, quiet=None).seconds == 0


def test_an_answer_goes_on_at_its_own_pace() -> None:
    request = running()
    request.engine.wrote(request, 5.0)

    left = remaining(request, 25.0, written=20, quiet=0.0)

    assert left.answer == 80
    assert left.seconds == pytest.approx(80.0)
    assert left.prompt == request.tokens + 20


def test_an_answer_that_is_longer_than_expected_ends_with_its_budget() -> None:
    fleet = Fleet(laptop=(LAPTOP, 1))
    request = fleet.sends(QUESTION, answer=100)
    assert remaining(request, 9.0, written=150, quiet=0.0).answer == 35

    routing = request.request.routing
    request.request.routing = type(routing)(
        model="model", ability="chat", prompt=QUESTION, budget=160
    )
    assert remaining(request, 9.0, written=150, quiet=0.0).answer == 10


def test_what_the_engine_has_learned_meanwhile_counts() -> None:
    request = running()
    before = remaining(request, 0.0, quiet=0.0).seconds
    learner = SpeedLearner(LAPTOP)
    learner.begin(
        Sample(
            cached=0,
            prompt=128,
            prompt_ms=1000 * 128 * PI.prefill,
            predicted=16,
            predicted_ms=1000 * 15 * PI.decode,
        )
    )
    request.engine.learner = learner

    assert remaining(request, 0.0, quiet=0.0).seconds > 2.5 * before


def test_answers_that_would_pause_elsewhere_are_a_price() -> None:
    fleet = Fleet(gpu=(GPU, 4))
    best = fleet.dispatcher.choose(fleet.asks(QUESTION), 0.0)
    assert best is not None
    alone = price(best)

    fleet.assigns(0.0)
    fleet.sends(a_prompt(b"another" * 100))
    best = fleet.dispatcher.choose(fleet.asks(QUESTION), 0.0)
    assert best is not None

    assert alone == 0
    assert price(best) > best.read
