from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from balancer.fleet.engines import NOT_LOADED, EngineCandidate, EngineKey
from balancer.lifecycle.demand import Demand, demands
from balancer.lifecycle.placement import Outlook, plan
from balancer.lifecycle.swap import Resident
from balancer.prediction.speed import Speed, typical
from balancer.routing.queued_request import QueuedRequest, ignore
from tests.balancer.building import a_candidate, a_request
from tests.fakes.reports import an_engine

NOW = 100.0


def absent(
    node: str = "pi", variant: str = "cold:Q4_1", **engine: Any
) -> EngineCandidate:
    report = an_engine(variant, state="absent", **{"load_seconds": 2.0} | engine)
    return a_candidate(node, report, unavailable=NOT_LOADED, temporary=True)


def loading(node: str = "pi", **engine: Any) -> EngineCandidate:
    report = an_engine("cold:Q4_1", state="loading", load_seconds=4.0, **engine)
    return a_candidate(node, report, unavailable="loading", temporary=True)


def asked(arrived: float = NOW, model: str = "cold", **routing: Any) -> QueuedRequest:
    return QueuedRequest(a_request(model, **routing), ignore, arrived)


def demand(
    *candidates: EngineCandidate, arrived: float = NOW, **routing: Any
) -> Demand:
    [found] = demands([asked(arrived, **routing)], candidates)
    return found


def an_outlook(
    candidates: Iterable[EngineCandidate],
    *,
    resident: Callable[[EngineKey], Resident] | None = None,
    speeds: dict[str, Speed] | None = None,
    **fields: Any,
) -> Outlook:
    engines = {each.key: each for each in candidates}
    known = speeds or {}
    usual: dict[str, Any] = {
        "now": NOW,
        "engines": engines,
        "up": frozenset(node for node, _ in engines),
        "ordered": {},
        "held": frozenset(),
        "busy": frozenset(),
        "resident": resident or (lambda key: Resident(to=engines[key])),
        "speed": lambda each: known.get(each.node, typical(100, 10, on_gpu=False)),
        "patience": 300.0,
    }
    return Outlook(**usual | fields)


def chosen(*candidates: EngineCandidate, tokens: int = 0, **fields: Any) -> str | None:
    there = demand(*candidates, tokens=tokens)
    load = plan(there, an_outlook(candidates, **fields)).load
    return None if load is None else f"{load.to.node} {load.to.engine.variant}"


def test_the_node_is_chosen_where_the_first_token_comes_soonest() -> None:
    quick_load, slow_load = absent("pi"), absent("nuc", load_seconds=3.0)
    fast = {"nuc": typical(1000, 10, on_gpu=False)}

    assert chosen(quick_load, slow_load, speeds=fast) == "pi cold:Q4_1"
    assert chosen(quick_load, slow_load, tokens=1000, speeds=fast) == "nuc cold:Q4_1"


def test_of_one_node_the_variant_that_evicts_least_is_loaded_then_the_best() -> None:
    warm = a_candidate("pi", an_engine("warm:Q4_1"))
    small = absent(variant="cold:Q4_1", memory=1)
    middle = absent(variant="cold:Q5_1", memory=2)
    large = absent(variant="cold:Q8_0", memory=3, evicts=("warm:Q4_1",))

    assert chosen(warm, small, large, middle) == "pi cold:Q5_1"


def test_running_requests_of_what_is_in_the_way_count_against_a_node() -> None:
    warm = a_candidate("pi", an_engine("warm:Q4_1"))
    here, there = absent("pi", evicts=("warm:Q4_1",)), absent("nuc", load_seconds=9.0)

    def busy(_: EngineKey) -> Resident:
        return Resident(to=warm, busy=True, drains=60.0)

    assert chosen(warm, here, there) == "pi cold:Q4_1"
    assert chosen(warm, here, there, resident=busy) == "nuc cold:Q4_1"


def test_an_engine_that_works_is_told_to_drain_after_a_quantum() -> None:
    warm = a_candidate("pi", an_engine("warm:Q4_1"))
    cold = absent("pi", evicts=("warm:Q4_1",))

    def busy(_: EngineKey) -> Resident:
        return Resident(to=warm, busy=True, wanted=[NOW], drains=60.0)

    outlook = an_outlook([warm, cold], resident=busy)
    early, late = demand(cold, arrived=NOW - 5), demand(cold, arrived=NOW - 50)

    assert plan(early, outlook).load is None
    load = plan(late, outlook).load
    assert load is not None
    assert load.drain


def test_while_an_engine_loads_no_other_is_told_to() -> None:
    assert chosen(loading("pi", progress=0.5), absent("nuc")) is None
    ordered = {("pi", "cold:Q4_1"): 3.0}
    assert chosen(absent("pi"), absent("nuc"), ordered=ordered) is None


def test_the_wait_for_a_load_is_what_is_left_of_it() -> None:
    there = loading(progress=0.75)
    found = plan(demand(there, tokens=50), an_outlook([there]))

    assert found.seconds is not None
    assert 1.4 < found.seconds < 1.7


def test_a_node_that_is_away_or_not_to_be_asked_is_passed_over() -> None:
    here, there = absent("pi"), absent("nuc", load_seconds=50.0)

    assert chosen(here, there, up=frozenset(("nuc",))) == "nuc cold:Q4_1"
    assert chosen(here, there, held=frozenset((here.key,))) == "nuc cold:Q4_1"


def test_a_node_gets_one_order_at_a_time() -> None:
    other = {("pi", "other:Q4_1"): 3.0}

    assert chosen(absent("pi"), ordered=other) is None


def test_an_engine_that_may_be_back_is_given_as_long_as_a_load_takes() -> None:
    failed = a_candidate(
        "pi",
        an_engine("cold:Q4_1", state="failed"),
        unavailable="failed",
        temporary=True,
    )
    there = absent("nuc", load_seconds=5.0)

    def after(seconds: float) -> bool:
        waits = demand(failed, there, arrived=NOW - seconds)
        return plan(waits, an_outlook([failed, there])).load is not None

    assert [after(1), after(4), after(6)] == [False, False, True]


def test_requests_that_an_engine_can_serve_are_no_reason_to_load() -> None:
    warm = a_candidate("pi", an_engine("cold:Q8_0", busy=2))

    assert chosen(warm, absent("nuc")) is None


def test_what_waits_is_grouped_by_what_can_serve_it() -> None:
    cold, other = absent(), absent(variant="other:Q8_0", context=1024)
    waiting = [asked(3), asked(1), asked(2, "other"), asked(4, "other", floor="Q6_K")]

    found = demands(waiting, [cold, other])

    assert [(each.count, each.oldest) for each in found] == [(2, 1), (1, 2), (1, 4)]
    assert [each.pending for each in found] == [(cold,), (other,), (other,)]


def test_an_absent_engine_that_is_not_as_good_as_asked_is_not_loaded() -> None:
    low, high = absent(variant="cold:Q4_1"), absent(variant="cold:Q8_0")

    assert demand(low, high, floor="Q6_K").pending == (high,)


def test_an_absent_engine_whose_context_is_too_short_is_not_loaded() -> None:
    short, long = absent(context=1024), absent(variant="cold:Q8_0", context=8192)

    assert demand(short, long, tokens=4000).pending == (long,)
    assert demand(short, long, too_short=1024).pending == (long,)


def test_where_a_node_says_that_engines_are_busy_it_drains_them_after_a_quantum() -> (
    None
):
    cold = absent("pi")
    outlook = an_outlook([cold], busy=frozenset((cold.key,)))

    early = plan(demand(cold, arrived=NOW - 5), outlook).load
    late = plan(demand(cold, arrived=NOW - 15), outlook).load

    assert early is not None
    assert not early.drain
    assert late is not None
    assert late.drain


def test_an_engine_that_has_just_failed_is_given_time_to_restart() -> None:
    failed = a_candidate("pi", an_engine("cold:Q4_1"))
    there = absent("nuc", load_seconds=1.0)
    tried = frozenset((failed.incarnation,))

    def after(seconds: float) -> bool:
        waits = demand(failed, there, arrived=NOW - seconds, tried=tried)
        return plan(waits, an_outlook([failed, there])).load is not None

    assert [after(0), after(1), after(3)] == [False, False, True]


def test_what_only_an_engine_of_a_node_can_serve_is_loaded_beside_an_idle_server() -> (
    None
):
    report = msgspec.structs.replace(an_engine("cold:Q4_1"), kind="server")
    server, cold = a_candidate("vllm", report), absent()
    waiting = [asked(), asked(portable=False)]
    anywhere, native = demands(waiting, [server, cold])
    outlook = an_outlook([server, cold])

    assert plan(anywhere, outlook).load is None
    load = plan(native, outlook).load
    assert load is not None
    assert load.to is cold
