"""Names of models and nodes, from the request to every place that shows them."""

from __future__ import annotations

from urllib.parse import unquote

import msgspec
import pytest

from edgeserve.cli.nodes.table import node_rows
from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine


@pytest.mark.parametrize(
    "name", ["Tiny_Chat.v2.Q4_1.gguf", "tiny_chat.V2.q4_1", "small:Q4_1", "small"]
)
async def test_a_model_is_called_by_the_name_of_its_file_too(name: str) -> None:
    engine = msgspec.structs.replace(an_engine(), file="Tiny_Chat.v2.Q4_1.gguf")
    async with fake_node("pi", engine=engine) as node, endpoint(node) as balancer:
        answer = await balancer.post(CHAT, chat(model=name))
        shown = await balancer.get(f"/v1/models/{name}")
        listed = await balancer.get("/v1/models")

    assert (answer.status, shown.status) == (200, 200)
    assert [each["id"] for each in listed.json["data"]] == ["small"]


@pytest.mark.parametrize(
    ("one", "other"), [("модель-ж", "модель-щ"), ("模型一", "模型二"), ("🦙", "🐫")]
)
async def test_models_in_other_alphabets_are_two(one: str, other: str) -> None:
    async with (
        fake_node("a", engine=an_engine(f"{one}:Q4_1")) as first,
        fake_node("b", engine=an_engine(f"{other}:Q4_1")) as second,
        endpoint(first, second) as balancer,
    ):
        answers = [await balancer.post(CHAT, chat(model=each)) for each in (one, other)]

    assert [each.headers["x-edgeserve-node"] for each in answers] == ["a", "b"]
    models = [unquote(each.headers["x-edgeserve-model"]) for each in answers]
    assert models == [f"{one}:Q4_1", f"{other}:Q4_1"]
    assert [
        each.told[0].headers["x-edgeserve-variant"] for each in (first, second)
    ] == models


async def test_two_nodes_of_one_name_have_different_names_everywhere() -> None:
    async with (
        fake_node("pi", id="3f2a77", instance="a") as first,
        fake_node("pi", id="90ccab", instance="b") as second,
        endpoint(first, second) as balancer,
    ):
        answers = [await balancer.post(CHAT, chat(str(n) * 999)) for n in range(4)]
        metrics = (await balancer.get("/metrics")).body.decode()
        models = (await balancer.get("/v1/models")).json["data"]
        nodes = (await balancer.get("/edgeserve/v1/nodes")).json
        requests = (await balancer.get("/edgeserve/v1/requests")).json
        why = (await balancer.get(f"/edgeserve/v1/requests/{requests[0]['id']}")).json

    both = {"pi#3f2a", "pi#90cc"}
    assert {each.headers["x-edgeserve-node"] for each in answers} <= both
    assert set(models[0]["nodes"]) == both
    assert {each["name"] for each in nodes} == both
    assert {row.cells[0] for row in node_rows(nodes)} == both
    assert {each["attempts"][0]["node"] for each in requests} <= both
    assert {each["node"] for each in why["attempts"][0]["candidates"]} == both
    assert all(f'edgeserve_engine_slots{{node="{each}"' in metrics for each in both)
    assert 'node="pi"' not in metrics
    assert any("call themselves pi" in line for line in balancer.heard)
