"""Orders to pull: which nodes get one, and which peers it names."""

from __future__ import annotations

import pytest

from balancer.api.nodes import NoSuchNode
from balancer.api.pulls import chosen, orders
from balancer.fleet.members import Fleet
from edgeserve.errors import BadRequest, NoNode
from edgeserve.http.types import Origin
from edgeserve.orders.pulls import FleetPull
from tests.fakes.reports import a_report

IDS = {"pi": "cc" * 16, "nuc": "aa" * 16, "attic": "bb" * 16}


def a_fleet(*draining: str) -> Fleet:
    fleet = Fleet()
    for number, (name, id_) in enumerate(IDS.items()):
        origin = Origin(f"10.0.0.{number}", 8090, tls=True)
        lan = Origin(f"192.168.1.{number}", 8090, tls=True)
        state = "draining" if name in draining else "up"
        fleet = fleet.discovered(name, "mdns", (origin, lan), id_)
        proved = Origin(origin.host, origin.port, tls=True, id=id_)
        report = a_report(name=name, id=id_, instance=name, state=state)
        fleet = fleet.reported(name, proved, report)
    return fleet


def test_the_lowest_id_is_told_first_and_all_that_are_up_are_peers() -> None:
    fleet = a_fleet()
    order = FleetPull(source="org/m", nodes=("pi", "nuc"))
    told = orders(fleet, chosen(fleet, order), order)

    assert [node.name for node, _ in told] == ["nuc", "pi"]
    assert {each.id for each in told[0][1].peers} == {IDS["pi"], IDS["attic"]}
    (pi,) = (each for each in told[0][1].peers if each.name == "pi")
    assert pi.urls == ("https://10.0.0.0:8090", "https://192.168.1.0:8090")


def test_a_peer_on_the_balancers_loopback_is_named_by_its_other_address() -> None:
    loopback = Origin("127.0.0.1", 8090, tls=True)
    fleet = a_fleet().discovered("up", "list", (loopback,), IDS["nuc"])
    report = a_report(name="nuc", id=IDS["nuc"])
    proved = Origin(loopback.host, loopback.port, tls=True, id=IDS["nuc"])
    fleet = fleet.reported("up", proved, report)
    told = orders(fleet, fleet.nodes, FleetPull(source="org/m", everywhere=True))

    (nuc,) = {
        peer.urls for _, order in told for peer in order.peers if peer.name == "nuc"
    }
    assert nuc == ("https://10.0.0.1:8090", "https://192.168.1.1:8090")


def test_everywhere_is_every_node_that_is_up() -> None:
    fleet = a_fleet("attic")
    order = FleetPull(source="org/m", everywhere=True)

    told = orders(fleet, chosen(fleet, order), order)

    assert [node.name for node, _ in told] == ["nuc", "pi"]
    assert [len(each.peers) for _, each in told] == [1, 1]


def test_an_order_names_nodes_that_are_up_or_everywhere() -> None:
    with pytest.raises(BadRequest):
        chosen(a_fleet(), FleetPull(source="org/m"))
    with pytest.raises(BadRequest):
        chosen(a_fleet(), FleetPull(source="org/m", nodes=("pi",), everywhere=True))
    with pytest.raises(NoSuchNode):
        chosen(a_fleet("pi"), FleetPull(source="org/m", nodes=("pi",)))
    with pytest.raises(NoNode):
        chosen(Fleet(), FleetPull(source="org/m", everywhere=True))
