from balancer.simulate.compare import made_up
from balancer.simulate.figures import figures
from balancer.simulate.fleets import FLEETS
from balancer.simulate.policies import POLICIES
from balancer.simulate.world import play


def test_the_same_seed_gives_the_same_outcomes() -> None:
    fleet = FLEETS["home"]
    calls = made_up(fleet, 0.7, 40, seed=3)

    once = play(fleet, calls, POLICIES["edgeserve"](fleet), seed=3)
    again = play(fleet, calls, POLICIES["edgeserve"](fleet), seed=3)

    assert once == again


def test_a_light_load_is_answered_sooner_than_by_least_connections() -> None:
    fleet = FLEETS["cpu-only"]
    calls = made_up(fleet, 0.3, 100, seed=1)

    rows = {
        name: figures(name, fleet, play(fleet, calls, POLICIES[name](fleet)))
        for name in ("edgeserve", "least-conn-slots")
    }

    assert rows["edgeserve"].first_p95 < 0.6 * rows["least-conn-slots"].first_p95
