"""The overview of models for admins."""

from __future__ import annotations

from balancer.api.models.overview import overview
from balancer.fleet.engines import candidates
from edgeserve.orders.engines import DesiredModel
from tests.balancer.building import a_fleet
from tests.fakes.reports import a_report, an_engine


def test_nodes_are_in_the_order_of_names_whichever_joined_first() -> None:
    fleet = a_fleet("pi", "nuc")
    pinned = (DesiredModel(model="small", pinned=True),)
    for node in fleet.nodes:
        said = a_report(an_engine(), name=node.name, desired=pinned)
        fleet = fleet.reported(node.name, node.origin, said)

    (row,) = overview(fleet, candidates(fleet), {})

    assert [each["node"] for each in row["engines"]] == ["nuc", "pi"]
    assert [each["node"] for each in row["desired"]] == ["nuc", "pi"]
