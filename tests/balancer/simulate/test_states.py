from __future__ import annotations

from balancer.simulate.compare import POLICIES, made_up
from balancer.simulate.fleets import FLEETS
from balancer.simulate.report import Figures, figures
from balancer.simulate.world import play


def simulated(fleet: str, policy: str) -> Figures:
    machines = FLEETS[fleet]
    calls = made_up(machines, 0.7, 80, 1)
    outcomes = play(machines, calls, POLICIES[policy](machines))
    return figures(policy, machines, outcomes)


def test_slow_machines_read_less_where_states_come_back_from_the_disk() -> None:
    plain, moving = (
        simulated("cpu-only", each) for each in ("edgeserve", "edgeserve-states")
    )

    assert moving.hit_share > plain.hit_share
    assert moving.first_mean < plain.first_mean
    assert moving.calls == plain.calls


def test_fast_machines_move_nothing() -> None:
    plain, moving = (
        simulated("six-equal", each) for each in ("edgeserve", "edgeserve-states")
    )

    assert moving.first_mean == plain.first_mean
