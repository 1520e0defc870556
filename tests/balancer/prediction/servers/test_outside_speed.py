"""The speed of a server is learned from when its tokens come."""

from __future__ import annotations

from statistics import median

import msgspec
import pytest

from balancer.persistence.learned import learned, restore
from balancer.prediction.learning import SpeedLearner
from balancer.prediction.speed import Sample, Speed, typical
from balancer.servers.report import GUESS
from tests.balancer.prediction.servers.queueing import Asked, QueueingServer


def wrong(asked: Asked) -> float:
    """By which share of the time the first token was predicted wrongly."""
    took = asked.first - asked.sent
    return abs(took - asked.predicted) / took


@pytest.mark.parametrize(("overhead", "read"), [(0.02, 20000.0), (0.3, 300.0)])
@pytest.mark.parametrize("clients", [1, 4, 8])
def test_first_tokens_are_predicted_after_twenty_requests(
    overhead: float, read: float, clients: int
) -> None:
    server = QueueingServer(16, assumed=8, overhead=overhead, read=read)
    server.clients(clients, answer=40)

    while len(server.done) < 60:
        server.run(1)

    assert median(map(wrong, server.done[20:60])) < 0.25


@pytest.mark.parametrize(("write", "slowdown"), [(150.0, 0.02), (8.0, 0.4)])
def test_the_pace_of_tokens_is_learned_at_the_load_that_is_seen(
    write: float, slowdown: float
) -> None:
    server = QueueingServer(16, assumed=8, write=write, slowdown=slowdown)
    server.clients(4, answer=40)

    while len(server.done) < 20:
        server.run(1)

    true = (1 + slowdown * 3) / write
    (engine,) = server.fleet_model.all()
    assert engine.speed.token_seconds(4) == pytest.approx(true, rel=0.25)


def test_the_guess_does_not_survive_the_first_answer() -> None:
    server = QueueingServer(4, read=100.0, write=5.0, overhead=0.2, noise=0.0)
    (engine,) = server.fleet_model.all()
    before = engine.speed
    server.ask(200, 20)

    server.run(60)

    assert engine.learner.calibrated
    assert engine.speed.prefill == pytest.approx(2.2 / 200, rel=0.15)
    assert engine.speed.decode == pytest.approx(0.2, rel=0.05)
    assert engine.speed.prefill > 5 * before.prefill


def test_short_prompts_alone_show_how_long_a_first_token_takes() -> None:
    server = QueueingServer(4, overhead=0.4, noise=0.0)
    for _ in range(3):
        server.ask(9, 20)
        server.run(5)

    last = server.ask(9, 20)
    server.run(5)

    assert wrong(last) < 0.1


def test_what_was_learned_of_a_server_outlives_the_balancer() -> None:
    server = QueueingServer(2, assumed=8)
    server.clients(8, answer=20)
    server.run(40)
    server.fleet_model.servers.refused(("gpu", "small"), 5000, 0)

    after = QueueingServer(2, assumed=8, kept=learned(server.policy))
    after.run(3)

    assert after.widths[-1] == server.width < 8
    assert after.fleet_model.servers.of(("gpu", "small")).too_long == 5000
    assert after.fleet_model.all()[0].speed == server.fleet_model.all()[0].speed


def test_what_an_earlier_version_has_learned_is_read() -> None:
    server = QueueingServer(2)
    kept = msgspec.json.decode(learned(server.policy))
    del kept["servers"]

    restore(server.policy, msgspec.json.encode(kept))


def test_a_request_that_waited_in_the_server_teaches_nothing_of_its_reading() -> None:
    learner = SpeedLearner(guessed())
    known = Sample(0, 100, 100.0, 20, 200.0, outside=True)
    learner.learn(known)
    speed = learner.speed

    learner.learn(Sample(0, 0, 9000.0, 20, 200.0, outside=True))

    assert learner.speed.prefill == speed.prefill


def guessed() -> Speed:
    return typical(GUESS.read, GUESS.write, on_gpu=True)
