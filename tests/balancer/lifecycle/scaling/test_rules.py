from typing import Any

from balancer.lifecycle.scaling.rules import (
    AbsentReplica,
    Replica,
    Scale,
    ScaledModel,
    Scaler,
)

GOAL = 5.0


def a_replica(node: str = "one", model: str = "m", **changes: Any) -> Replica:
    given: dict[str, Any] = {"slots": 1, "seconds": 4.0, "load_seconds": 8.0}
    return Replica(key=(node, model), **{**given, **changes})


def absent(node: str = "two", model: str = "m", **changes: Any) -> AbsentReplica:
    given: dict[str, Any] = {"slots": 1, "seconds": 4.0, "load_seconds": 8.0}
    return AbsentReplica(key=(node, model), **{**given, **changes})


def a_model(model: str = "m", wait: float = 0.0, **changes: Any) -> ScaledModel:
    given = {"replicas": (a_replica(),), "absent": (absent(),)}
    return ScaledModel(model=model, wait=wait, **{**given, **changes})


def seconds(
    scaler: Scaler, *models: ScaledModel, start: int = 0, count: int = 10
) -> list[tuple[int, Scale]]:
    """Show the scaler the same models each second; return when it decides what."""
    return [
        (now, each)
        for now in range(start, start + count)
        for each in scaler.decide(models, float(now))
    ]


def loads(found: list[tuple[int, Scale]]) -> list[tuple[int, str]]:
    return [(now, each.engine[0]) for now, each in found if each.action == "load"]


def test_a_wait_over_the_goal_loads_a_replica_once_it_has_lasted() -> None:
    found = seconds(Scaler(GOAL), a_model(wait=9.0, waiting=3, running=1), count=3)

    assert loads(found) == [(1, "two")]
    assert found[0][1].why == "a request would wait 9.0 s, more than 5 s"


def test_a_wait_below_the_goal_loads_nothing() -> None:
    assert seconds(Scaler(GOAL), a_model(wait=4.9), count=100) == []


def test_a_backlog_that_is_gone_before_the_load_ends_gets_no_replica() -> None:
    scaler = Scaler(GOAL)

    found = [
        scaler.decide(
            [a_model(wait=20.0 - now, absent=(absent(load_seconds=30),))], now
        )
        for now in range(20)
    ]

    assert not any(found)


def test_a_backlog_that_shrinks_slowly_gets_a_replica() -> None:
    scaler = Scaler(GOAL)

    found = [
        each
        for now in range(9)
        for each in scaler.decide(
            [a_model(wait=20 - now / 2, absent=(absent(load_seconds=30),))], now
        )
    ]

    assert [each.action for each in found] == ["load"]


def test_one_replica_of_a_model_loads_at_a_time() -> None:
    loading = a_replica("two", loading=True)
    model = a_model(
        wait=9.0, replicas=(a_replica(), loading), absent=(absent("three"),)
    )

    assert seconds(Scaler(GOAL), model) == []


def test_the_first_replica_is_not_the_autoscalers() -> None:
    assert seconds(Scaler(GOAL), a_model(wait=60.0, waiting=1, replicas=())) == []


def test_the_replica_that_answers_most_of_the_backlog_is_taken() -> None:
    slow, quick = absent("pi", seconds=40.0), absent("gpu", seconds=0.5)

    found = seconds(Scaler(GOAL), a_model(wait=9.0, absent=(slow, quick)), count=3)

    assert loads(found) == [(1, "gpu")]


def test_a_model_gets_no_more_replicas_than_its_limit() -> None:
    assert seconds(Scaler(GOAL), a_model(wait=90.0, most=1)) == []


def other(**changes: Any) -> ScaledModel:
    """A second model on node two, with an idle engine that would have to leave."""
    given: dict[str, Any] = {"idle_seconds": 1.0, **changes}
    there = (a_replica("two", "other", **given), a_replica("three", "other"))
    return ScaledModel(model="other", wait=0.0, replicas=there)


def test_an_idle_engine_of_a_model_with_less_to_do_leaves() -> None:
    model = a_model(
        wait=9.0, waiting=3, running=1, absent=(absent(evicts=(("two", "other"),)),)
    )

    assert loads(seconds(Scaler(GOAL), model, other(), count=3)) == [(1, "two")]


def test_busy_and_pinned_engines_and_the_last_of_a_model_in_use_stay() -> None:
    model = a_model(
        wait=9.0, waiting=3, running=1, absent=(absent(evicts=(("two", "other"),)),)
    )
    last = ScaledModel(
        model="other", wait=0.0, replicas=(a_replica("two", "other", idle_seconds=9.0),)
    )
    more = ScaledModel(model="other", wait=0.0, running=9, replicas=other().replicas)

    for protected in (other(idle_seconds=0.0), other(pinned=True), last, more):
        assert seconds(Scaler(GOAL), model, protected) == []


def test_two_models_never_get_one_node_at_once() -> None:
    one = a_model(wait=9.0)
    two = ScaledModel(
        model="n",
        wait=8.0,
        replicas=(a_replica(model="n"),),
        absent=(absent(model="n"),),
    )

    found = [each for each in seconds(Scaler(GOAL), one, two, count=3) if each[0] == 1]

    assert loads(found) == [(1, "two")]


def pair(**changes: Any) -> ScaledModel:
    spare = a_replica("two", seconds=8.0, idle_seconds=5.0)
    return a_model(replicas=(a_replica(), spare), absent=(), **changes)


def test_a_replica_that_was_not_needed_for_a_calm_time_is_let_go() -> None:
    found = seconds(Scaler(GOAL), pair(running=0), count=82)

    assert [(now, each.engine[0]) for now, each in found] == [(80, "two")]


def test_one_busy_moment_begins_the_calm_time_anew() -> None:
    scaler = Scaler(GOAL)

    assert seconds(scaler, pair(), count=70) == []
    assert seconds(scaler, pair(running=2), start=70, count=1) == []
    assert seconds(scaler, pair(), start=71, count=80) == []
    assert len(seconds(scaler, pair(), start=151, count=1)) == 1


def test_the_last_replica_and_the_least_number_are_never_let_go() -> None:
    alone = a_model(replicas=(a_replica(idle_seconds=900.0),))

    assert seconds(Scaler(GOAL), alone, count=900) == []
    assert seconds(Scaler(GOAL), pair(least=2), count=900) == []


def test_after_a_load_none_is_let_go_for_a_calm_time() -> None:
    scaler = Scaler(GOAL)
    seconds(scaler, a_model(wait=9.0), count=3)

    assert [now for now, _ in seconds(scaler, pair(), start=3, count=90)] == [83]


def test_a_load_that_changed_nothing_is_not_repeated_at_once() -> None:
    found = seconds(Scaler(GOAL), a_model(wait=9.0), count=17)

    assert loads(found) == [(1, "two"), (9, "two")]


def test_a_load_waits_a_tenth_of_the_calm_time_after_one_was_let_go() -> None:
    scaler = Scaler(GOAL)
    [(then, _)] = seconds(scaler, pair(), count=81)

    found = seconds(scaler, a_model(wait=9.0), start=81, count=12)

    assert loads(found) == [(then + 8, "two")]
