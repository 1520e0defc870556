"""What is learned from requests that run beside others."""

from __future__ import annotations

import pytest

from balancer.dialects.timings import Timings
from balancer.routing.tracking import AttemptTracker
from tests.balancer.building import a_candidate
from tests.balancer.routing.test_predictive import Setup


def test_the_overhead_is_learned_beside_an_answer() -> None:
    setup = Setup([a_candidate("a")])
    (engine,) = setup.fleet_model.all()
    setup.sends().wrote()

    for _ in range(60):
        send = setup.sends()
        # It waits for half of the other one's step, on average.
        setup.now += 2.03 + engine.speed.token_seconds(1) * engine.scale / 2
        send.wrote()
        setup.now += 1.0
        send.answered(Timings(0, 40, 2000.0, 11, 1000.0))
        setup.predict.give_back(send)

    assert engine.speed.overhead == pytest.approx(0.03, abs=0.005)


def test_the_wait_for_a_batch_is_no_overhead() -> None:
    setup = Setup([a_candidate("a")])
    (engine,) = setup.fleet_model.all()
    met, send = setup.sends(), setup.sends()

    met.progress(500, 0, 0)
    setup.now += 5.0
    met.wrote()
    met.answered(Timings(0, 500, 5000.0, 2, 10.0))
    setup.predict.give_back(met)
    send.progress(40, 0, 0)
    setup.now += 2.0
    send.wrote()
    send.answered(Timings(0, 40, 2000.0, 2, 10.0))
    setup.predict.give_back(send)

    assert engine.speed.overhead < 0.01


def test_what_is_moved_before_it_is_sent_is_no_overhead() -> None:
    setup = Setup([a_candidate("a")])
    (engine,) = setup.fleet_model.all()

    send = setup.sends()
    assert isinstance(send, AttemptTracker)
    send.prepared = 0.9
    setup.now += 0.9 + 2.0
    send.wrote()
    setup.now += 1.0
    send.answered(Timings(0, 40, 2000.0, 11, 1000.0))
    setup.predict.give_back(send)

    assert engine.speed.overhead < 0.01


def test_of_two_sent_at_once_the_second_counts_on_the_first() -> None:
    setup = Setup([a_candidate("a")])
    held = [setup.sends(), setup.sends()]
    waiting = [setup.enters(), setup.enters()]
    assert [each.decision for each in waiting] == [None, None]

    for each in held:
        setup.predict.give_back(each)
    setup.looks()
    first, second = (each.decision for each in waiting)

    assert isinstance(first, AttemptTracker)
    assert isinstance(second, AttemptTracker)
    read = first.assignment.estimate.read
    assert second.assignment.estimate.ahead == pytest.approx(read, rel=0.3)
