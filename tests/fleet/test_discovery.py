from __future__ import annotations

from pathlib import Path

from tests.fleet.asking import Got, client
from tests.fleet.conftest import Trio
from tests.fleet.fleet import answer, fleet, until

ALL = ("attic", "cellar", "kitchen")


async def test_three_nodes_and_a_balancer_find_each_other(trio: Trio) -> None:
    async with client(trio.fleet, trio.balancer) as ask:
        nodes = await ask.serving(*ALL)

    assert len({each["id"] for each in nodes.values()}) == 3


async def test_a_node_whose_address_changes_keeps_its_identity(trio: Trio) -> None:
    async with client(trio.fleet, trio.balancer) as ask:
        before = await ask.serving(*ALL)
        host = trio.nodes["attic"].host
        old = f"https://{host.address}:"
        host.move_to("10.77.0.100")

        # It may have been followed by its link-local address all the time.
        after = await answer(
            ask.nodes,
            lambda now: not now.get("attic", {"url": old})["url"].startswith(old),
            "the balancer follows",
        )

        assert after["attic"]["id"] == before["attic"]["id"]
        assert set(await ask.serving(*ALL)) == set(ALL)


async def test_a_balancer_that_restarts_has_its_fleet_back(trio: Trio) -> None:
    async with client(trio.fleet, trio.balancer) as ask:
        before = await ask.serving(*ALL)
        trio.balancer.kill()
        trio.balancer.start()
        after = await ask.serving(*ALL)

    assert [after[name]["id"] for name in ALL] == [before[name]["id"] for name in ALL]


async def test_a_balancer_whose_address_changes_still_finds_nodes(trio: Trio) -> None:
    async with client(trio.fleet, trio.balancer) as ask:
        await ask.serving(*ALL)
    trio.balancer.host.move_to("10.77.0.101")
    async with client(trio.fleet, trio.balancer) as ask:
        old = trio.nodes["kitchen"].host.address
        trio.nodes["kitchen"].kill()
        await ask.serving("attic", "cellar")
        trio.nodes["kitchen"].host.move_to("10.77.0.102")
        trio.nodes["kitchen"].start()
        nodes = await ask.serving(*ALL)

    assert old not in nodes["kitchen"]["url"]


async def test_a_node_is_found_whose_network_comes_after_it(
    tmp_path: Path, fake_engine: list[str]
) -> None:
    with fleet(tmp_path) as made:
        balancer = made.balancer(made.network.host("balancer"))
        host = made.network.host("early")
        host.unplug()
        host.lose_address()
        node = made.node(host, "--name", "early", *fake_engine)
        await until(lambda: "serves small" in node.log, "it serves")
        host.plug_in()
        host.take_address("10.77.0.50")
        async with client(made, balancer) as ask:
            await ask.serving("early")


async def test_a_node_without_ipv4_is_found(
    tmp_path: Path, fake_engine: list[str]
) -> None:
    with fleet(tmp_path) as made:
        host = made.network.host("modern")
        host.lose_address()
        made.node(host, "--name", "modern", *fake_engine)
        balancer = made.balancer(made.network.host("balancer"))
        async with client(made, balancer) as ask:
            nodes = await ask.serving("modern")

    assert nodes["modern"]["url"].startswith("https://[fe80::")


async def test_where_multicast_is_dropped_nodes_are_listed_or_register(
    tmp_path: Path, fake_engine: list[str]
) -> None:
    with fleet(tmp_path) as made:
        hosts = [made.network.host(name) for name in ("mute", "listed", "registered")]
        balancer_host = made.network.host("balancer")
        made.network.drop_multicast()
        balancer = made.balancer(
            balancer_host, "--node", f"http://{hosts[1].address}:8090"
        )
        made.node(hosts[0], "--name", "mute", *fake_engine)
        made.node(hosts[1], "--name", "listed", *fake_engine)
        url = f"http://{balancer_host.address}:8080"
        flags = ("--name", "registered", "--balancer", url)
        made.node(hosts[2], *flags, *fake_engine)
        async with client(made, balancer) as ask:
            await ask.serving("listed", "registered")
            got = Got()
            await ask.stream(got, tokens=2)

    assert got.whole
