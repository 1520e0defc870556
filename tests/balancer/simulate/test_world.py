"""Properties of every policy, on every fleet, under every load."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from balancer.simulate.compare import POLICIES, made_up
from balancer.simulate.edgeserve_policy import Edge
from balancer.simulate.fleets import FLEETS, Machine
from balancer.simulate.traffic import Chats, trace
from balancer.simulate.world import CallOutcome, play

LOADS = (0.3, 0.7, 1.2)

small_fleets = st.lists(
    st.builds(
        Machine,
        name=st.just("m"),
        slots=st.integers(1, 4),
        prefill=st.floats(10, 3000),
        decode=st.floats(3, 100),
        slowdown=st.floats(0, 1),
        batch=st.sampled_from([64, 256, 2048]),
        cache_tokens=st.sampled_from([0, 0, 4000]),
        noise=st.floats(0, 0.3),
    ),
    min_size=1,
    max_size=4,
).map(lambda fleet: [_named(machine, i) for i, machine in enumerate(fleet)])


def _named(machine: Machine, number: int) -> Machine:
    return replace(machine, name=f"m{number}")


def most_at_once(outcomes: list[CallOutcome], engine: int) -> int:
    edges = [(o.started, 1) for o in outcomes if o.engine == engine]
    edges += [(o.ended, -1) for o in outcomes if o.engine == engine]
    most = now = 0
    for _, step in sorted(edges):
        now += step
        most = max(most, now)
    return most


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("fleet_name", FLEETS)
def test_everything_that_came_was_answered_once_and_in_order(
    fleet_name: str, load: float, name: str
) -> None:
    fleet = FLEETS[fleet_name]
    calls = made_up(fleet, load, 30, seed=5)

    outcomes = play(fleet, calls, POLICIES[name](fleet))

    assert sorted(each.call.id for each in outcomes) == sorted(c.id for c in calls)
    for each in outcomes:
        assert (
            0 <= each.arrived <= each.sent <= each.started <= each.first <= each.ended
        )
        assert 0 <= each.cached < each.call.prompt_tokens
    for engine, machine in enumerate(fleet):
        assert most_at_once(outcomes, engine) <= machine.slots


@settings(max_examples=25)
@given(small_fleets, st.integers(0, 10**6), st.floats(0.01, 10), st.booleans())
def test_on_any_fleet_nothing_is_lost_and_nothing_predicted_is_negative(
    fleet: list[Machine], seed: int, rate: float, pins: bool
) -> None:
    calls = trace(Chats(answer_tokens=40), rate, 8, seed)

    edge = Edge(fleet, pins=pins)
    outcomes = play(fleet, calls, edge, seed)

    assert len(outcomes) == len(calls)
    assert all(each.ended >= 0 for each in outcomes)
    assert all(each.predicted is not None and each.predicted > 0 for each in outcomes)
    assert not edge.waiting
    for engine in edge.engine_models:
        assert (engine.taken, engine.queued, engine.load.requests) == (0, 0, {})
    assert edge.dispatcher.cache_index.idle.bit_count() == sum(m.slots for m in fleet)


@pytest.mark.parametrize("name", ["edgeserve", "oracle", "two-choices"])
def test_the_same_seed_gives_the_same_outcomes(name: str) -> None:
    fleet = FLEETS["home"]
    calls = made_up(fleet, 0.7, 40, seed=3)

    once = play(fleet, calls, POLICIES[name](fleet), seed=3)
    again = play(fleet, calls, POLICIES[name](fleet), seed=3)

    assert once == again


def test_nothing_waits_while_every_engine_that_serves_it_is_idle() -> None:
    fleet = FLEETS["six-equal"]
    calls = made_up(fleet, 0.1, 60, seed=2)

    outcomes = play(fleet, calls, POLICIES["edgeserve"](fleet))

    # A slot can be worth waiting for, but never longer than reading the prompt takes.
    waits = [each.sent - each.arrived for each in outcomes]
    assert sorted(waits)[len(waits) * 9 // 10] == 0
    assert max(waits) < 5


def test_never_does_a_request_wait_longer_than_ten_times_the_usual() -> None:
    fleet = FLEETS["cpu-only"]
    calls = made_up(fleet, 1.2, 150, seed=4)

    outcomes = play(fleet, calls, POLICIES["edgeserve"](fleet))

    waits = sorted(each.started - each.arrived for each in outcomes)
    assert waits[-1] < 10 * max(30.0, waits[len(waits) // 2])


def test_a_small_queue_refuses_with_a_time_to_come_back() -> None:
    fleet = FLEETS["cpu-only"]
    calls = made_up(fleet, 3.0, 60, seed=4)

    outcomes = play(fleet, calls, Edge(fleet, queue=3))

    assert any(each.refused for each in outcomes)
    assert all(each.refused != (each.ended >= 0) for each in outcomes)
