"""EdgeServe beside the others, in virtual time: the same seeds, the same figures.

Chats of several turns that share four system prompts. The bounds lie well within what
is reached (the table in CONTRIBUTING), so that a change of a weight does not break them
and a change for the worse does.
"""

from functools import cache

import pytest
from msgspec.structs import replace

from balancer.simulate.compare import CLASSIC, POLICIES, made_up
from balancer.simulate.fleets import FLEETS
from balancer.simulate.report import Figures, figures
from balancer.simulate.traffic import Chats
from balancer.simulate.world import CallOutcome, play

UNEQUAL = ("cpu-only", "home")
SEEDS = {0.3: (11, 12), 0.7: (11, 12), 1.2: (12,)}
"""By load. Under overload the queue is long, and looking through it takes seconds."""


@cache
def reached(fleet_name: str, load: float, policy: str) -> Figures:
    fleet = FLEETS[fleet_name]
    outcomes: list[CallOutcome] = []
    for seed in SEEDS[load]:
        calls = made_up(fleet, load, 150, seed)
        outcomes += play(fleet, calls, POLICIES[policy](fleet), seed)
    return figures(policy, fleet, outcomes)


def best_classic(fleet_name: str, load: float) -> float:
    return min(reached(fleet_name, load, name).first_p95 for name in CLASSIC)


@pytest.mark.parametrize("load", [0.3, 0.7])
@pytest.mark.parametrize("fleet", UNEQUAL)
def test_on_unequal_machines_the_first_token_comes_in_half_the_time(
    fleet: str, load: float
) -> None:
    ours = reached(fleet, load, "edgeserve").first_p95

    assert 2 * ours <= best_classic(fleet, load)
    assert 2 * ours <= reached(fleet, load, "cache-aware-tuned").first_p95
    assert 10 * ours <= reached(fleet, load, "cache-aware").first_p95


@pytest.mark.parametrize("fleet", UNEQUAL)
def test_it_comes_in_a_fiftieth_of_what_stock_cache_awareness_needs(fleet: str) -> None:
    ours, theirs = (
        reached(fleet, 0.3, name).first_p95 for name in ("edgeserve", "cache-aware")
    )

    assert 50 * ours <= theirs


@pytest.mark.parametrize("fleet", UNEQUAL)
def test_under_overload_it_still_comes_far_sooner(fleet: str) -> None:
    ours = reached(fleet, 1.2, "edgeserve").first_p95

    assert 1.5 * ours <= best_classic(fleet, 1.2)
    assert 2 * ours <= reached(fleet, 1.2, "cache-aware-tuned").first_p95


@pytest.mark.parametrize("load", [0.3, 0.7, 1.2])
def test_on_six_equal_machines_no_policy_is_better(load: float) -> None:
    ours = reached("six-equal", load, "edgeserve")

    for name in (*CLASSIC, "cache-aware", "cache-aware-tuned"):
        theirs = reached("six-equal", load, name)
        assert ours.first_p50 <= theirs.first_p50
        assert ours.first_p95 <= theirs.first_p95
        assert ours.whole_p95 <= 1.05 * theirs.whole_p95


@pytest.mark.parametrize("load", [0.3, 0.7, 1.2])
def test_it_finds_nearly_all_that_an_all_knowing_router_finds(load: float) -> None:
    found, known = (
        sum(reached(fleet, load, name).hit_share for fleet in FLEETS)
        for name in ("edgeserve", "oracle")
    )

    assert found >= 0.95 * known


@pytest.mark.parametrize("load", [0.3, 0.7])
@pytest.mark.parametrize("fleet", FLEETS)
def test_knowing_everything_would_not_help_much(fleet: str, load: float) -> None:
    ours, oracle = reached(fleet, load, "edgeserve"), reached(fleet, load, "oracle")

    assert ours.first_mean <= 1.25 * oracle.first_mean


def test_answers_that_come_back_without_their_reasoning_do_no_harm() -> None:
    fleet = FLEETS["six-equal"]
    calls = made_up(fleet, 0.5, 150, 13, Chats(answer_tokens=60, thought_tokens=200))

    ours, best = (
        figures(name, fleet, play(fleet, calls, POLICIES[name](fleet)))
        for name in ("edgeserve", "least-conn")
    )

    assert ours.error is not None
    assert ours.error <= 0.1
    assert ours.first_p95 <= best.first_p95


def test_a_host_cache_is_made_use_of() -> None:
    fleet = FLEETS["six-equal"]
    larger = [replace(machine, cache_tokens=20_000) for machine in fleet]
    calls = made_up(fleet, 0.7, 150, 13)

    without, with_it, theirs = (
        figures(name, machines, play(machines, calls, POLICIES[name](machines)))
        for name, machines in (
            ("edgeserve", fleet),
            ("edgeserve", larger),
            ("least-conn", larger),
        )
    )

    assert with_it.hit_share >= 1.2 * without.hit_share
    assert 1.3 * with_it.first_p95 <= theirs.first_p95


@pytest.mark.parametrize("fleet", FLEETS)
def test_the_median_prediction_is_within_a_tenth(fleet: str) -> None:
    error = reached(fleet, 0.7, "edgeserve").error

    assert error is not None
    assert error <= 0.08
