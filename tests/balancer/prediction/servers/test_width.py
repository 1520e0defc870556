"""The width of a server that does not tell it is learned from what it does."""

from __future__ import annotations

from statistics import mean

import pytest

from balancer.prediction.servers.width import MOST_ROUNDS, LearnedWidth
from tests.balancer.prediction.servers.queueing import QueueingServer


def lately(server: QueueingServer, looks: int = 15) -> list[int]:
    return server.widths[-looks:]


@pytest.mark.parametrize(
    ("slots", "assumed", "clients", "noise"),
    [(1, 8, 8, 0.1), (4, 1, 12, 0.1), (4, 8, 12, 0.35), (8, 8, 20, 0.1)],
)
def test_the_width_comes_near_the_slots_from_above_and_from_below(
    slots: int, assumed: int, clients: int, noise: float
) -> None:
    server = QueueingServer(slots, assumed=assumed, noise=noise)
    server.clients(clients, answer=30)

    server.run(90)

    assert 0.75 * slots <= mean(lately(server)) <= 1.25 * slots + 0.25
    assert server.known is not None
    assert server.known.shown


def test_a_server_that_scales_up_and_down_is_followed() -> None:
    server = QueueingServer(1, assumed=8)
    server.clients(10, answer=30)
    server.run(60)
    assert mean(lately(server, 10)) < 1.6

    server.slots = 4
    server.run(60)
    assert 3.5 <= mean(lately(server)) <= 5

    server.slots = 1
    server.run(60)
    assert mean(lately(server)) < 2


def test_the_width_does_not_swing_and_trials_that_fail_become_rare() -> None:
    server = QueueingServer(4, assumed=8)
    server.clients(12, answer=30)
    server.run(60)
    before = len(server.widths)
    server.run(60)

    settled = server.widths[before:]
    assert set(settled) <= {3, 4, 5}
    assert settled.count(4) >= 0.6 * len(settled)
    assert server.known is not None
    assert server.known.rounds >= MOST_ROUNDS / 4


def test_a_server_without_a_limit_is_given_more_and_more() -> None:
    server = QueueingServer(1000, assumed=8, slowdown=0.02)
    server.clients(100, answer=30)

    server.run(40)

    assert server.width >= 64


def test_more_at_once_is_not_tried_on_where_it_adds_no_throughput() -> None:
    server = QueueingServer(1000, assumed=8, slowdown=1.0, overhead=0.01)
    server.clients(50, answer=20)

    server.run(200)

    assert max(server.widths[-60:]) <= 18


def test_a_light_load_shows_nothing_and_changes_nothing() -> None:
    server = QueueingServer(4, assumed=8)
    server.clients(2, think=2.0)

    server.run(60)

    assert set(server.widths) == {8}


def test_one_late_answer_is_an_accident_and_two_are_a_queue() -> None:
    width = LearnedWidth(8)

    width.queued(3)
    assert width.width == 8
    width.on_time(5, 0, 10, 1.0)
    width.queued(3)
    assert width.width == 8
    width.queued(2)
    assert (width.width, width.shown) == (3, True)


def test_a_refusal_is_a_limit_at_once_and_no_width_is_below_one() -> None:
    width = LearnedWidth(8)

    width.refused(6)
    assert width.width == 5
    for _ in range(9):
        width.refused(1)
    assert width.width == 1


def test_the_width_stays_below_what_the_server_takes_at_most() -> None:
    width = LearnedWidth(8, most=10)

    for _ in range(100):
        width.on_time(width.width, 0, 10 * width.width, 1.0)

    assert width.width == 10
