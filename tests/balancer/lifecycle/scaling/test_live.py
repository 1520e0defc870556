"""The autoscaler over a live balancer, in front of nodes that load when told to."""

import asyncio
import time

from balancer.lifecycle.placement import Load, Unload
from balancer.lifecycle.scaling.live import FleetScaler
from tests.balancer.endpoint import Endpoint, eventually
from tests.balancer.lifecycle.test_loading import absent, ask, fleet
from tests.fakes.llama import Behaviour
from tests.fakes.reports import an_engine


def wished(scaler: FleetScaler, seconds: int) -> list[Load | Unload]:
    """Ask once for each of the coming seconds."""
    start = time.monotonic()
    return [wish for each in range(seconds) for wish in scaler.wishes(start + each)]


def a_scaler(balancer: Endpoint) -> FleetScaler:
    return FleetScaler(balancer.balancer.state, 5.0, balancer.balancer.loader.events)


async def test_a_second_replica_loads_where_requests_would_wait_too_long() -> None:
    slow = Behaviour(decode=4)
    async with fleet("pi", "nuc", behaviour=slow, wait_goal=0.5) as (balancer, nodes):
        asking = [asyncio.ensure_future(ask(balancer, "cold")) for _ in range(40)]
        await eventually(lambda: all(node.loads.loads for node in nodes))
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

        told = balancer.balancer.loader.events.latest()

    assert [len(node.loads.loads) for node in nodes] == [1, 1]
    [scaled] = [each for each in told if each.kind == "scaled"]
    assert scaled.model == "cold:Q4_1"
    assert "more than 0.5 s" in scaled.reason


async def test_of_two_replicas_without_work_one_is_let_go_and_only_one() -> None:
    async with fleet("pi", "nuc", engine=an_engine("warm:Q4_1")) as (balancer, _):
        found = wished(a_scaler(balancer), 130)

    assert [type(each) for each in found] == [Unload, Unload]
    assert len({each.to.key for each in found}) == 1  # as nobody follows
    assert found[0].why == "for 60 s the others would have sufficed"


async def test_limits_keep_replicas_that_are_not_needed() -> None:
    async with fleet("pi", "nuc", engine=an_engine("warm:Q4_1")) as (balancer, _):
        scaler = a_scaler(balancer)
        scaler.limits = lambda model: (2, None) if model == "warm" else (0, None)

        assert wished(scaler, 200) == []


async def test_a_pinned_replica_is_not_let_go() -> None:
    engine = an_engine("warm:Q4_1", pinned=True)
    async with fleet("pi", "nuc", engine=engine) as (balancer, _):
        assert wished(a_scaler(balancer), 200) == []


async def test_on_a_machine_that_is_spared_no_replica_is_counted_or_loaded() -> None:
    async with fleet("pi", "nuc", engine=an_engine("warm:Q4_1")) as (balancer, _):
        state, scaler = balancer.balancer.state, a_scaler(balancer)
        spared = state.current.candidates[0].key
        state.predictive.fleet_model.last_resort[spared] = "on battery"

        assert wished(scaler, 200) == []  # the other one is the last that counts


async def test_a_fleet_where_nothing_waits_wishes_nothing() -> None:
    warm, cold = an_engine("warm:Q4_1"), absent("cold:Q4_1")
    async with fleet("pi", "nuc", engine=warm, others=(cold,)) as (balancer, _):
        scaler = a_scaler(balancer)
        scaler.limits = lambda _: (2, None)

        assert wished(scaler, 100) == []
