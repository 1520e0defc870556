"""Nodes by DNS, from a real name server on loopback."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from dns.asyncresolver import Resolver
from dns.name import from_text

from balancer.discovery import dns
from balancer.discovery.dns import (
    AGAIN_SECONDS,
    LONGEST,
    SHORTEST,
    NodeName,
    NodeNames,
    node_name,
)
from balancer.discovery.hints import Discovered, Withdrawn
from balancer.fleet.members import Fleet
from balancer.persistence.inheritance import Inherited, follow_known
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import SettingsError
from edgeserve.http.types import Origin
from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.fakes.names import FakeNames, fake_names
from tests.fakes.node import fake_node

A_NAME, SRV_NAME = "dns://nodes.example:9000", "dns+srv://nodes.example"
SRV = "_edgeserve._tcp.nodes.example"


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[FakeNames]:
    async with fake_names() as made:

        def resolver() -> Resolver:
            resolver = Resolver(configure=False)
            resolver.nameservers, resolver.port = ["127.0.0.1"], made.port
            return resolver

        monkeypatch.setattr(dns, "system_resolver", resolver)
        yield made


Events = list[Discovered | Withdrawn]


def following(url: str) -> tuple[NodeNames, Events]:
    name, events = node_name(url), Events()
    assert name is not None
    return NodeNames(name, events.append), events


def changes(events: Events) -> dict[str, list[str] | None]:
    """What was said last of each key, without the name before it."""
    said = {
        each.key.partition(" at ")[2]: [o.url for o in each.origins]
        if isinstance(each, Discovered)
        else None
        for each in events
    }
    events.clear()
    return said


async def test_each_address_of_a_name_is_a_node(names: FakeNames) -> None:
    names.hosts["nodes.example"] = ["10.0.0.1", "10.0.0.2"]
    looking, events = following(A_NAME)

    await looking.look()

    assert changes(events) == {
        "10.0.0.1": ["http://10.0.0.1:9000"],
        "10.0.0.2": ["http://10.0.0.2:9000"],
    }


async def test_a_name_without_ipv4_is_asked_for_ipv6(names: FakeNames) -> None:
    names.hosts["nodes.example"] = ["fd00::5"]
    looking, events = following("dns://nodes.example")

    await looking.look()

    assert changes(events) == {"fd00::5": ["http://[fd00::5]:8090"]}


@pytest.mark.parametrize("beside", [True, False])
async def test_a_service_record_has_the_port(names: FakeNames, beside: bool) -> None:
    names.beside = beside
    names.hosts = {"a.example": ["10.0.0.1"], "b.example": ["10.0.0.2"]}
    names.services[SRV] = [("a.example", 8090), ("b.example", 8091)]
    looking, events = following(SRV_NAME)

    await looking.look()

    assert changes(events) == {
        "a.example:8090": ["http://10.0.0.1:8090"],
        "b.example:8091": ["http://10.0.0.2:8091"],
    }


async def test_a_service_record_whose_name_is_gone_is_no_node(names: FakeNames) -> None:
    names.hosts = {"a.example": ["10.0.0.1"]}
    names.services[SRV] = [("a.example", 8090), ("gone.example", 8090)]
    looking, events = following(SRV_NAME)

    await looking.look()

    assert changes(events) == {"a.example:8090": ["http://10.0.0.1:8090"]}


async def test_a_name_that_fails_hides_no_other_node(
    names: FakeNames, caplog: pytest.LogCaptureFixture
) -> None:
    names.beside = False
    names.hosts = {"a.example": ["10.0.0.1"], "b.example": ["10.0.0.2"]}
    names.services[SRV] = [("a.example", 8090), ("b.example", 8090)]
    names.broken = {"b.example"}
    looking, events = following(SRV_NAME)

    assert await looking.look() == AGAIN_SECONDS

    assert changes(events) == {"a.example:8090": ["http://10.0.0.1:8090"]}
    assert f"cannot look up {SRV_NAME} at b.example:8090" in caplog.text
    names.broken = set()
    await looking.look()
    assert changes(events) == {"b.example:8090": ["http://10.0.0.2:8090"]}
    names.broken = {"a.example"}
    await looking.look()
    assert changes(events) == {}


async def test_an_answer_too_long_for_a_packet_is_fetched_whole(
    names: FakeNames,
) -> None:
    hosts = [f"node-{number}.nodes.example" for number in range(100)]
    names.hosts = {host: [f"10.0.1.{i}"] for i, host in enumerate(hosts)}
    names.services[SRV] = [(host, 8090) for host in hosts]
    looking, events = following(SRV_NAME)

    await looking.look()

    assert len(events) == 100
    assert names.over_tcp >= 1


async def test_names_that_come_and_go_are_nodes_that_come_and_go(
    names: FakeNames,
) -> None:
    names.hosts = {"a.example": ["10.0.0.1"], "b.example": ["10.0.0.2"]}
    names.services[SRV] = [("a.example", 8090)]
    looking, events = following(SRV_NAME)
    await looking.look()
    assert changes(events).keys() == {"a.example:8090"}

    names.services[SRV] = [("b.example", 8090)]
    await looking.look()
    assert changes(events) == {
        "a.example:8090": None,
        "b.example:8090": ["http://10.0.0.2:8090"],
    }

    names.hosts["b.example"] = ["10.0.0.9"]
    await looking.look()
    assert changes(events) == {"b.example:8090": ["http://10.0.0.9:8090"]}

    await looking.look()
    assert events == []


async def test_a_name_server_that_fails_takes_no_node_away(
    names: FakeNames, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.hosts["nodes.example"] = ["10.0.0.1"]
    looking, events = following(A_NAME)
    await looking.look()
    events.clear()
    monkeypatch.setattr(dns, "ANSWER_SECONDS", 0.2)

    for trouble in ("failing", "silent"):
        caplog.clear()
        setattr(names, trouble, True)
        for _ in range(2):
            assert await looking.look() == AGAIN_SECONDS
        setattr(names, trouble, False)

        assert events == []
        assert len(caplog.messages) == 1
        assert "known nodes stay" in caplog.text


async def test_a_name_that_is_missing_is_said_once(
    names: FakeNames, caplog: pytest.LogCaptureFixture
) -> None:
    looking, events = following(SRV_NAME)

    for _ in range(3):
        assert await looking.look() == AGAIN_SECONDS

    assert caplog.messages == [f"{SRV_NAME} has no node: DNS has no {SRV}"]
    names.hosts["a.example"] = ["10.0.0.1"]
    names.services[SRV] = [("a.example", 8090)]
    await looking.look()
    assert len(events) == 1


async def test_the_next_look_is_when_the_answer_expires(names: FakeNames) -> None:
    names.hosts["nodes.example"] = ["10.0.0.1"]
    looking, _ = following(A_NAME)

    for ttl, seconds in ((0, SHORTEST), (12, 12), (3600, LONGEST)):
        names.ttl = ttl
        assert await looking.look() == seconds


@pytest.mark.parametrize(
    ("url", "name", "port"),
    [
        ("dns://edgeserve-nodes", "edgeserve-nodes", 8090),
        ("dns://nodes.ns.svc:9000", "nodes.ns.svc", 9000),
        ("dns+srv://nodes.ns.svc", "_edgeserve._tcp.nodes.ns.svc", 0),
    ],
)
def test_the_url_names_what_is_asked_for(url: str, name: str, port: int) -> None:
    assert node_name(url) == NodeName(url=url, name=name, port=port)
    assert BalancerSettings(nodes=(url,)).nodes == (url,)


def test_a_port_beside_service_records_is_refused() -> None:
    with pytest.raises(SettingsError, match="SRV records have the ports"):
        node_name("dns+srv://nodes.example:8090")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("dns://127.0.0.1", "write --node http://127.0.0.1"),
        ("dns://[::1]:8090", r"write --node http://\[::1\]:8090"),
        ("dns+srv://10.0.0.1", "has an address"),
        ("dns://:8090", "names no host"),
        ("dns://", "names no host"),
    ],
)
def test_what_needs_no_name_server_is_refused(url: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        node_name(url)


def test_other_urls_are_no_names() -> None:
    assert node_name("http://10.0.0.5:8090") is None
    with pytest.raises(ValueError, match=r"dns\+srv://NAME"):
        BalancerSettings(nodes=("ftp://nodes",))


async def test_a_node_at_another_address_is_the_same_node(
    names: FakeNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns, "SHORTEST", 0.05)
    monkeypatch.setattr(dns, "LONGEST", 0.05)
    names.hosts["a.example"] = ["127.0.0.1"]
    async with endpoint(nodes=(SRV_NAME,)) as balancer:
        async with fake_node("pi", instance="first") as node:
            names.services[SRV] = [("a.example", node.origin.port)]
            await balancer.until(lambda fleet: is_up(fleet, node.origin))
        async with fake_node("pi", instance="second") as node:
            names.services[SRV] = [("a.example", node.origin.port)]
            await balancer.until(lambda fleet: is_up(fleet, node.origin))
            answered = await balancer.post(CHAT, chat())

            fleet = balancer.balancer.state.current.fleet
            assert [each.id for each in fleet.nodes] == ["pi"]
            assert answered.headers["x-edgeserve-node"] == "pi"
            await balancer.until(lambda fleet: len(fleet.addresses) == 1)


async def test_after_a_takeover_dns_has_to_name_a_node_again() -> None:
    """Else one that has left DNS meanwhile would be sought for ever."""
    events = Events()
    known = Discovered("dns://nodes at 10.0.0.1", (Origin("10.0.0.1", 1),), None, "dns")
    async with endpoint() as balancer:
        state = balancer.balancer.state
        await follow_known(state, Inherited([known]), events.append)

    assert events == [known, Withdrawn(known.key)]


async def test_a_short_name_is_sought_in_the_domains_of_this_machine(
    names: FakeNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolver() -> Resolver:
        made = Resolver(configure=False)
        made.nameservers, made.port = ["127.0.0.1"], names.port
        made.search, made.ndots = [from_text("prod.svc.cluster.local.")], 5
        return made

    monkeypatch.setattr(dns, "system_resolver", resolver)
    names.services["_edgeserve._tcp.nodes.prod.svc.cluster.local"] = [
        ("a.nodes.prod.svc.cluster.local", 8090)
    ]
    names.hosts["a.nodes.prod.svc.cluster.local"] = ["10.0.0.1"]
    looking, events = following("dns+srv://nodes")

    await looking.look()

    assert list(changes(events).values()) == [["http://10.0.0.1:8090"]]


def is_up(fleet: Fleet, origin: Origin) -> bool:
    return [(each.origin, each.state) for each in fleet.nodes] == [(origin, "up")]
