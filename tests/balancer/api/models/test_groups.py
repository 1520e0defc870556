"""Groups that an admin forms, ends, or only asks about."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edgeserve.config.paths import admin_key_file
from edgeserve.orders.groups import NodeLink
from tests.balancer.endpoint import CHAT, Answered, Endpoint, chat, eventually
from tests.balancer.lifecycle.groups.fleets import GROUP, LAYERED, able, ask, fleet
from tests.balancer.lifecycle.groups.test_forming import gone
from tests.fakes.reports import an_engine

PATH, OTHER = "/edgeserve/v1/models/big/group", "/edgeserve/v1/models/other/group"


async def order(
    balancer: Endpoint, state_dir: Path, path: str = PATH, **body: Any
) -> Answered:
    """Order with the key that commands on this machine have."""
    port = balancer.balancer.origin.port
    key = admin_key_file(state_dir, port).read_text().strip()
    return await balancer.post(path, body, {"authorization": f"Bearer {key}"})


async def test_a_dry_run_says_what_to_expect_and_forms_nothing(
    tmp_path: Path,
) -> None:
    async with fleet("pi", state_dir=tmp_path) as (balancer, pc):
        told = await order(balancer, tmp_path, dry_run=True)

    assert told.status == 200
    assert [each["node"] for each in told.json["members"]] == ["pc", "pi"]
    assert sum(each["layers"] for each in told.json["members"]) == LAYERED.layers
    ms = sum(each["computing_ms"] + each["network_ms"] for each in told.json["members"])
    assert told.json["tokens_per_second"] == pytest.approx(1000 / ms, rel=0.06)
    assert told.json["unknown_speed"] == ["pc", "pi"]
    assert pc.groups.formed == []
    assert len(pc.groups.measured) == 1


async def test_a_dry_run_names_a_smaller_variant_that_one_machine_serves_faster(
    tmp_path: Path,
) -> None:
    small = an_engine("big:Q2_K", threads=64)
    async with fleet("pi", engine=small, state_dir=tmp_path) as (balancer, _):
        told = await order(balancer, tmp_path, dry_run=True)

    [other] = told.json["alone"]
    assert (other["variant"], other["node"]) == ("big:Q2_K", "pc")
    assert other["quicker"]


async def test_a_group_is_formed_of_the_nodes_that_are_named(
    tmp_path: Path,
) -> None:
    async with fleet("pi", "nuc", state_dir=tmp_path) as (balancer, pc):
        told = await order(balancer, tmp_path, nodes=["pc", "nuc"], head="pc")
        await eventually(lambda: pc.find(GROUP) is not None)

    assert told.status == 202
    assert [each.name for each in pc.groups.formed[0].workers] == ["nuc"]


async def test_a_model_that_fits_on_a_node_can_be_grouped_too(
    tmp_path: Path,
) -> None:
    fits = an_engine("big:Q4_1", layered=LAYERED, state="absent")
    head = {"available": (), **able()}
    async with fleet(
        "pi", engine=fits, head=head, groups="off", state_dir=tmp_path
    ) as (balancer, pc):
        told = await order(balancer, tmp_path)

    assert told.status == 202
    assert len(pc.groups.formed) == 1


async def test_groups_can_be_formed_by_admins_where_they_are_off(
    tmp_path: Path,
) -> None:
    async with fleet("pi", groups="off", state_dir=tmp_path) as (balancer, pc):
        told = await order(balancer, tmp_path)
        await eventually(lambda: pc.find(GROUP) is not None)
        answer = await ask(balancer)

    assert told.status == 202
    assert answer.status == 200


async def test_a_group_is_dissolved(
    tmp_path: Path,
) -> None:
    async with fleet("pi", state_dir=tmp_path) as (balancer, pc):
        await ask(balancer)
        told = await order(balancer, tmp_path, dissolve=True)

    assert told.json["dissolved"] == [{"model": "big:Q4_1", "node": "pc"}]
    assert [each.variant for each in pc.groups.dissolved] == ["big:Q4_1"]


async def test_a_group_that_has_lost_a_member_is_dissolved_too(
    tmp_path: Path,
) -> None:
    async with fleet("pi", "nuc", state_dir=tmp_path) as (balancer, pc):
        await ask(balancer)
        [formed] = pc.groups.formed
        pc.groups.lose("big:Q4_1", formed.workers[0].node)
        current = balancer.balancer.state.current
        await eventually(
            lambda: all(
                each.engine.state == "absent"
                for each in current.candidates
                if each.engine.group
            )
        )
        told = await order(balancer, tmp_path, dissolve=True)

    assert told.json["dissolved"] == [{"model": "big:Q4_1", "node": "pc"}]


async def test_a_group_that_is_dissolved_can_be_formed_at_any_time(
    tmp_path: Path,
) -> None:
    async with fleet("pi", state_dir=tmp_path) as (balancer, pc):
        answers = list[Answered]()
        for _ in range(6):
            answers.append(await ask(balancer))
            await order(balancer, tmp_path, dissolve=True)
            await gone(balancer)

    assert [each.status for each in answers] == [200] * 6
    assert len(pc.groups.formed) == 6


async def test_what_no_group_holds_is_refused_in_words(
    tmp_path: Path,
) -> None:
    async with fleet("pi", head=able(3), state_dir=tmp_path) as (balancer, _):
        told = await order(balancer, tmp_path)

    assert told.status == 409
    assert "it needs" in told.error
    assert "free" in told.error


async def test_a_head_without_the_file_is_refused_with_who_has_it(
    tmp_path: Path,
) -> None:
    async with fleet("pi", state_dir=tmp_path) as (balancer, _):
        told = await order(balancer, tmp_path, head="pi")

    assert told.status == 409
    assert "pi has no file of it, and cannot lead; it is on pc" in told.error


async def test_unknown_models_and_nodes_are_named(
    tmp_path: Path,
) -> None:
    async with fleet("pi", state_dir=tmp_path) as (balancer, _):
        model = await order(balancer, tmp_path, OTHER)
        node = await order(balancer, tmp_path, nodes=["attic"])

    assert (model.status, node.status) == (404, 404)
    assert "attic" in node.error


async def test_what_is_expected_waits_for_the_network_to_be_measured(
    tmp_path: Path,
) -> None:
    async with fleet("pi", state_dir=tmp_path) as (balancer, pc):
        pc.groups.measures.clear()
        told = asyncio.ensure_future(order(balancer, tmp_path, dry_run=True))
        await eventually(lambda: len(pc.groups.measured) == 1)
        pc.groups.links["pi"] = NodeLink(round_trip=0.2, bytes_per_second=1e5)
        pc.groups.measures.set()
        answer = await told

    assert answer.json["members"][1]["network_ms"] > 200


async def test_only_an_admin_may_order(tmp_path: Path) -> None:
    async with fleet("pi", state_dir=tmp_path) as (balancer, pc):
        answer = await balancer.post(PATH, {})

    assert answer.status == 403
    assert pc.groups.formed == []


async def test_load_says_that_a_group_is_needed(tmp_path: Path) -> None:
    async with fleet("pi", state_dir=tmp_path) as (balancer, _):
        path = "/edgeserve/v1/models/big/load"
        told = await order(balancer, tmp_path, path)

    assert told.status == 409
    assert "edgeserve models group big" in told.error


async def test_a_group_that_serves_shows_what_was_measured(tmp_path: Path) -> None:
    async with fleet("pi", state_dir=tmp_path) as (balancer, _):
        before = await order(balancer, tmp_path, dry_run=True)
        for _ in range(3):
            await balancer.post(CHAT, chat(model="big", max_tokens=12))
        after = await order(balancer, tmp_path, dry_run=True)

    assert before.json["measured"] is None
    assert after.json["measured"] > 0
