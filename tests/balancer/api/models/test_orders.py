"""Orders of admins about models: who may give them, what the nodes are told."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgeserve.orders.engines import DesiredModel
from edgeserve.wire import AvailableModel
from tests.balancer.api.models.ruled import engine, ruled


@pytest.mark.parametrize("action", ["load", "unload", "pin", "limit"])
async def test_only_an_admin_may_order(action: str, tmp_path: Path) -> None:
    async with ruled(tmp_path, pi=engine("absent")) as fleet:
        fleet.key = ""
        answer = await fleet.order(action)
        orders = fleet.got("pi")

    assert (answer.status, answer.json["error"]["code"]) == (403, "admin_only")
    assert orders == []


async def test_a_load_goes_where_it_is_quickest_or_where_it_is_told(
    tmp_path: Path,
) -> None:
    slow, quick = engine("absent", 9.0), engine("absent", 2.0)
    async with ruled(tmp_path, pi=slow, nuc=quick) as fleet:
        best = await fleet.order("load")
        await fleet.known("nuc")
        again = await fleet.order("load")
        named = await fleet.order("load", "SMALL:q4_1", node="pi")

    assert (best.status, best.json["node"]) == (202, "nuc")
    assert best.json["engine"]["id"] == "small:Q4_1"
    assert (again.status, again.json["node"]) == (202, "nuc")
    assert (named.status, named.json["node"]) == (202, "pi")
    why = "an admin asked for it"
    order = {"engine": "small:Q4_1", "drain": False, "why": why}
    assert fleet.got("nuc") == [("load", order)] == fleet.got("pi")


async def test_what_is_loaded_is_not_loaded_again(tmp_path: Path) -> None:
    async with ruled(tmp_path, pi=engine("ready"), nuc=engine("absent")) as fleet:
        answer = await fleet.order("load")

    assert (answer.status, answer.json["node"]) == (200, "pi")
    assert not fleet.got("pi") + fleet.got("nuc")


async def test_a_nodes_refusal_is_passed_on_in_its_words(tmp_path: Path) -> None:
    async with ruled(tmp_path, pi=engine("absent")) as fleet:
        fleet.nodes["pi"].loads.refuses = "engines_busy"
        answer = await fleet.order("load")

    assert (answer.status, answer.json["error"]["code"]) == (409, "engines_busy")
    assert answer.error == "pi: made to refuse: engines_busy"
    assert answer.headers["retry-after"] == "1"


async def test_what_no_node_can_load_is_refused_with_the_reasons(
    tmp_path: Path,
) -> None:
    broken = engine("quarantined", reason="it crashed five times")
    async with ruled(tmp_path, pi=broken) as fleet:
        broken_one = await fleet.order("load")
        unknown = await fleet.order("load", "huge")
        nowhere = await fleet.order("load", node="attic")

    assert (broken_one.status, broken_one.json["error"]["code"]) == (
        409,
        "not_loadable",
    )
    assert "pi: quarantined: it crashed five times" in broken_one.error
    assert (unknown.status, nowhere.status) == (404, 404)
    assert "no node 'attic' has small; there are: pi" in nowhere.error


async def test_what_is_forbidden_everywhere_is_refused_with_the_remedy(
    tmp_path: Path,
) -> None:
    kept = AvailableModel(
        model="big", variant="big:F16", file="big.gguf", reason="forbidden", remedy="M"
    )
    async with ruled(tmp_path, pi=engine("ready")) as fleet:
        pi = fleet.nodes["pi"]
        pi.say(msgspec.structs.replace(pi.report, available=(kept,)))
        await fleet.known("pi")
        load = await fleet.order("load", "big")
        pin = await fleet.order("pin", "BIG:f16")

    assert load.error == "no node can load big now: pi: forbidden; M"
    assert pin.error.endswith("pi: forbidden; M")


async def test_an_unload_reaches_every_node_that_has_it(tmp_path: Path) -> None:
    async with ruled(
        tmp_path, pi=engine("ready"), nuc=engine("busy"), box=engine("absent")
    ) as fleet:
        answer = await fleet.order("unload")
        await fleet.known("pi")
        await fleet.known("nuc")
        again = await fleet.order("unload")

    assert answer.status == 202
    assert sorted(each["node"] for each in answer.json["unloaded"]) == ["nuc", "pi"]
    assert [path for path, _ in fleet.got("pi") + fleet.got("nuc")] == ["unload"] * 2
    assert fleet.got("box") == again.json["unloaded"] == []


async def test_an_unload_that_one_node_refuses_reaches_the_others(
    tmp_path: Path,
) -> None:
    async with ruled(tmp_path, pi=engine("ready"), nuc=engine("ready")) as fleet:
        fleet.nodes["pi"].loads.refuses = "model_pinned"
        some = await fleet.order("unload")
        none = await fleet.order("unload", node="pi")

    assert [each["node"] for each in some.json["unloaded"]] == ["nuc"]
    assert some.json["refused"] == ["pi: made to refuse: model_pinned"]
    assert (none.status, none.json["error"]["code"]) == (409, "model_pinned")


async def test_a_pin_goes_where_the_model_is_loaded_and_is_lifted_there(
    tmp_path: Path,
) -> None:
    async with ruled(tmp_path, pi=engine("absent", 0.1), nuc=engine("ready")) as fleet:
        await fleet.order("limit", keep_alive=60, node="nuc")
        await fleet.known("nuc")
        pinned = await fleet.order("pin")
        await fleet.known("nuc")
        (row,) = await fleet.rows()
        lifted = await fleet.order("pin", off=True)

    assert pinned.json["desired"]["nuc"]["pinned"] is True
    assert pinned.json["desired"]["nuc"]["keep_alive"] == 60
    assert [(each["node"], each["pinned"]) for each in row["desired"]] == [
        ("nuc", True)
    ]
    assert lifted.json["desired"]["nuc"]["pinned"] is False
    assert fleet.got("pi") == []


async def test_a_pin_by_another_name_of_the_model_stays_and_is_named(
    tmp_path: Path,
) -> None:
    async with ruled(tmp_path, pi=engine("ready")) as fleet:
        await fleet.order("pin", "small:q4_1")
        await fleet.known("pi")
        (row,) = await fleet.rows()
        lifted = await fleet.order("pin", off=True)

    (desired,) = row["desired"]
    assert lifted.json["desired"] == {}
    assert lifted.json["refused"] == [
        f"{desired['model']} stays pinned to pi, by that name"
    ]


async def test_keep_alive_and_forbidden_go_to_all_nodes_that_have_the_model(
    tmp_path: Path,
) -> None:
    async with ruled(tmp_path, pi=engine("absent"), nuc=engine("ready")) as fleet:
        fleet.nodes["nuc"].say(
            msgspec.structs.replace(
                fleet.nodes["nuc"].report,
                desired=(DesiredModel(model="small", pinned=True),),
            )
        )
        await fleet.known("nuc")
        answer = await fleet.order("limit", keep_alive=0, forbidden=True)

    wanted = {"model": "small", "pinned": False, "forbidden": True, "keep_alive": 0.0}
    assert fleet.got("pi") == fleet.got("nuc") == [("desired", wanted)]
    assert answer.json["desired"] == {"pi": wanted, "nuc": wanted}


async def test_replica_limits_are_of_the_fleet_and_are_kept(tmp_path: Path) -> None:
    async with ruled(tmp_path, pi=engine("ready")) as fleet:
        first = await fleet.order("limit", min=2)
        wrong = await fleet.order("limit", max=1)
        there = await fleet.order("limit", max=3, node="pi")
        told = fleet.got("pi")
    async with ruled(tmp_path, pi=engine("ready")) as fleet:
        (row,) = await fleet.rows()
        await fleet.order("limit", min=None)
        (lifted,) = await fleet.rows()

    assert first.json["limits"] == {"min": 2, "max": None}
    assert (wrong.status, there.status, told) == (400, 400, [])
    assert "min is 2, larger than max, 1" in wrong.error
    assert row["limits"] == [{"model": "small", "min": 2, "max": None}]
    (problem,) = row["problems"]
    assert (problem["node"], problem["code"]) == (None, "below_min")
    assert "edgeserve models limit small --min 1" in problem["remedy"]
    assert lifted["limits"] == lifted["problems"] == []


async def test_a_minimum_is_loaded_without_a_request_and_a_maximum_unloads(
    tmp_path: Path,
) -> None:
    async with ruled(tmp_path, pi=engine("absent", 2.0), nuc=engine("ready")) as fleet:
        for node in fleet.nodes.values():
            node.loads.release()
        await fleet.order("limit", min=2)
        await fleet.endpoint.until(
            lambda up: [n.report.engines[0].state for n in up.nodes] == ["ready"] * 2
        )
        await fleet.order("limit", min=None, max=1)
        await fleet.endpoint.until(
            lambda up: (
                {n.report.engines[0].state for n in up.nodes} == {"ready", "absent"}
            )
        )

    assert fleet.got("pi")[0][1]["why"] == "at least 2 of small shall be loaded"
    whys = [body["why"] for node in ("pi", "nuc") for _, body in fleet.got(node)]
    assert whys.count("at most 1 of small may be loaded") == 1


async def test_a_maximum_of_none_is_to_be_said_as_forbidden(tmp_path: Path) -> None:
    async with ruled(tmp_path, pi=engine("ready")) as fleet:
        answer = await fleet.order("limit", max=0)

    assert answer.status == 400
    assert "`forbidden` keeps" in answer.error
