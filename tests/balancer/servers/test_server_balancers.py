"""A balancer serves as a server of another one; see docs/many-machines.md."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from balancer.discovery.loops import MOST, check_loop, passed_on, ways_around
from balancer.fleet.engines import EngineCandidate
from edgeserve.config.servers import ServerSetting
from edgeserve.errors import LoopDetected
from edgeserve.served import Served
from edgeserve.wire import BALANCER_HEADER
from tests.balancer.building import a_candidate
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint
from tests.balancer.servers.reading import text
from tests.bench.proxy.process import free_ports
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine


def behind(endpoint: Endpoint) -> ServerSetting:
    """Name a balancer as a server, by its kind: without that it is refused."""
    return ServerSetting(url=endpoint.balancer.origin.url, kind="openai")


async def test_one_address_serves_the_models_of_several_balancers() -> None:
    async with (
        fake_node("pi", engine=an_engine("small:Q4_1")) as pi,
        fake_node("gpu", engine=an_engine("large:Q8_0")) as gpu,
        endpoint(pi) as small,
        endpoint(gpu) as large,
        endpoint(server_tables=(behind(small), behind(large))) as front,
    ):
        first = await front.post(CHAT, chat(model="small"))
        second = await front.post(CHAT, chat(model="large"))
        stream = await front.post(CHAT, chat(model="large", stream=True))
        unknown = await front.post(CHAT, chat(model="huge"))

    assert (first.status, len(pi.told)) == (200, 1)
    assert (second.status, stream.status, len(gpu.told)) == (200, 200, 2)
    assert text(stream.body) == second.text
    assert unknown.status == 404


async def test_balancers_that_name_each_other_list_what_some_node_has() -> None:
    [one, two] = free_ports(2)
    async with (
        AsyncExitStack() as machines,
        endpoint(port=two, server_tables=(at(one),), wait=False) as other,
    ):
        start = machines.enter_async_context
        pi = await start(fake_node("pi", engine=an_engine("small:Q4_1")))
        async with endpoint(pi, port=one, server_tables=(at(two),), wait=False) as here:
            await other.until(lambda fleet: "up" in {n.state for n in fleet.nodes})
            through = await other.post(CHAT, chat())
            listed = [await models(each) for each in (here, other)]
            shown = await here.get("/v1/models", {BALANCER_HEADER: "another"})
            passed = ",".join(["another", *shown.json["data"][0]["balancers"]])
            looped = await here.post(CHAT, chat(), {BALANCER_HEADER: passed})
            await machines.aclose()
            for each in (here, other):
                await each.until(
                    lambda fleet: {n.state for n in fleet.nodes} <= {"unreachable"}
                )
            gone = [await models(each) for each in (here, other)]

    assert (through.status, len(pi.told)) == (200, 1)
    assert listed == [["small"], ["small"]]
    assert gone == [[], []]
    assert looped.status == 508
    assert looped.json["error"]["code"] == "loop_detected"
    assert "[[server]]" in looped.error


async def models(endpoint: Endpoint) -> list[str]:
    listed = (await endpoint.get("/v1/models")).json["data"]
    return [each["id"] for each in listed]


def test_the_shortest_way_that_avoids_a_balancer_is_shown() -> None:
    def behind(*ids: str) -> EngineCandidate:
        served = Served(behind=ids)
        return a_candidate(engine=an_engine("small:Q4_1", served=served))

    long, short = behind("b", "c", "d"), behind("a", "b")

    assert ways_around([long, short], "c") == dict.fromkeys(
        ("small", "small:Q4_1"), ("a", "b")
    )
    assert ways_around([long, short], "a")["small"] == ("b", "c", "d")
    assert ways_around([long, short], "b") == {}


def at(port: int) -> ServerSetting:
    """Name a balancer that may not run yet."""
    return ServerSetting(url=f"http://127.0.0.1:{port}", kind="openai")


def test_a_request_passes_through_a_few_balancers_but_not_through_any_number() -> None:
    passed = ""
    for number in range(MOST):
        check_loop(passed, "own")
        passed = passed_on(passed, f"balancer-{number}")
    check_loop(passed, "own")

    with pytest.raises(LoopDetected):
        check_loop(passed_on(passed, "one more"), "own")
    with pytest.raises(LoopDetected):
        check_loop(passed, "balancer-3")
