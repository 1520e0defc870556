"""Circuit breakers: which engines get requests after failures."""

from __future__ import annotations

from balancer.fleet.engines import EngineCandidate
from balancer.health.breaker import CircuitBreakers
from tests.balancer.building import a_candidate
from tests.fakes.reports import an_engine


class Scene:
    """A breaker with a clock of its own, and engines to judge."""

    def __init__(self, *candidates: EngineCandidate) -> None:
        self.now = 100.0
        self.breaker = CircuitBreakers(self.change, lambda: self.now, lambda: 0.0)
        self.candidates = candidates
        self.changes = 0
        self.ranked = self.breaker.ranked(candidates)

    def change(self) -> None:
        self.changes += 1
        self.ranked = self.breaker.ranked(self.candidates)

    def open(self, node: str) -> None:
        """Let requests fail until the breaker opens."""
        for each in self.candidates:
            if each.node == node:
                for _ in range(3):
                    self.breaker.failed(each.key, "engine")

    def __getitem__(self, node: str) -> EngineCandidate:
        return next(each for each in self.ranked if each.node == node)


def three() -> Scene:
    return Scene(*(a_candidate(name, an_engine(slots=4)) for name in ("a", "b", "c")))


def test_an_engine_that_joins_is_trusted() -> None:
    scene = three()

    assert scene.ranked == scene.candidates
    assert scene.breaker.reserved == {}


def test_an_engine_that_failed_ranks_behind_those_that_did_not() -> None:
    scene = three()

    scene.breaker.failed(scene["a"].key, "engine")

    assert scene["a"].rank > scene["b"].rank
    assert scene["a"].risk > 0
    assert scene["a"].unavailable is None


def test_an_engine_that_fails_three_times_gets_nothing_and_is_waited_for() -> None:
    scene = three()

    scene.open("a")

    assert scene["a"].unavailable
    assert scene["a"].temporary


def test_the_requests_own_faults_harm_no_engine() -> None:
    scene = three()

    for _ in range(9):
        scene.breaker.failed(scene["a"].key, "none")

    assert scene.ranked == scene.candidates


def test_a_doubt_is_cleared_by_a_probe() -> None:
    scene = three()

    scene.breaker.failed(scene["a"].key, "doubt")

    assert [each.node for each in scene.breaker.due()] == ["a"]
    assert scene.breaker.due() == []
    scene.breaker.probed(scene["a"].key, well=True)
    assert scene["a"].rank == 0


def test_a_nodes_fault_counts_for_every_engine_on_it() -> None:
    engines = [an_engine(variant, slots=2) for variant in ("small:Q4_1", "small:Q8_0")]
    scene = Scene(*(a_candidate("a", each) for each in engines), a_candidate("b"))

    scene.breaker.failed(scene["a"].key, "node")

    assert [each.rank for each in scene.ranked] == [1, 1, 0]


def test_the_only_engine_of_a_model_is_never_shut_out() -> None:
    other = [a_candidate(name, an_engine("big:Q4_1", slots=8)) for name in ("x", "y")]
    scene = Scene(a_candidate("a"), *other)

    scene.open("a")

    assert scene["a"].unavailable is None


def test_an_engine_that_recovers_starts_slowly() -> None:
    scene = three()
    scene.open("a")
    scene.now += 1
    assert [each.node for each in scene.breaker.due()] == ["a"]

    scene.breaker.probed(scene["a"].key, well=True)
    assert scene.breaker.reserved[scene["a"].key] == 3
    for _ in range(4):
        scene.breaker.answered(scene["a"].key)
    assert scene.breaker.reserved.get(scene["a"].key, 0) == 0


def test_a_slow_start_ends_in_time_too() -> None:
    scene = three()
    scene.open("a")
    scene.now += 1
    scene.breaker.due()
    scene.breaker.probed(scene["a"].key, well=True)
    changes = scene.changes

    scene.now += 15
    scene.breaker.tick()

    assert scene.changes > changes
    assert 0 < scene.breaker.reserved[scene["a"].key] < 3


def test_an_engine_that_restarted_is_probed_at_once() -> None:
    scene = three()
    scene.open("a")
    assert scene.breaker.due() == []

    anew = a_candidate("a", an_engine(slots=4))
    down = a_candidate("a", an_engine(slots=4), unavailable="unreachable")
    for each in (down, anew):
        scene.candidates = (each, *scene.candidates[1:])
        scene.change()

    assert [each.node for each in scene.breaker.due()] == ["a"]


def test_an_engine_that_is_down_is_not_probed() -> None:
    scene = three()
    scene.open("a")
    down = a_candidate("a", an_engine(slots=4), unavailable="unreachable")
    scene.candidates = (down, *scene.candidates[1:])
    scene.change()

    scene.now += 60

    assert scene.breaker.due() == []


def test_nothing_is_kept_of_engines_that_left() -> None:
    scene = three()
    scene.open("a")
    gone, *rest = scene.candidates
    scene.candidates = tuple(rest)
    scene.change()

    scene.candidates = (gone, *rest)
    scene.change()

    assert scene.ranked == scene.candidates


def test_an_engine_that_stays_failed_is_not_waited_for() -> None:
    failed = a_candidate(
        "a", an_engine(state="failed"), unavailable="failed", temporary=True
    )
    scene = Scene(failed)
    assert scene["a"].temporary

    scene.now += 10
    scene.breaker.tick()

    assert not scene["a"].temporary
    assert scene.changes == 1
    scene.breaker.tick()
    assert scene.changes == 1
