"""The list of models: what any OpenAI client reads, and what only ours read."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from balancer.clients.keys import ClientKey, key_id
from balancer.clients.store import add_key, store_in
from tests.balancer.endpoint import endpoint
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine


async def test_a_model_says_where_it_is_loaded_and_what_its_variants_are() -> None:
    file = {"created": 1_700_000_000, "memory": 2**30}
    loaded = msgspec.structs.replace(an_engine(), **file)
    absent = msgspec.structs.replace(an_engine("small:Q8_0", state="absent"), **file)
    async with (
        fake_node("pi", engine=loaded) as pi,
        fake_node("nuc", engine=absent) as nuc,
        endpoint(pi, nuc) as balancer,
    ):
        (model,) = (await balancer.get("/v1/models")).json["data"]
        variant = (await balancer.get("/v1/models/small:q8_0")).json

    first, second = model.pop("variants")
    assert model == {
        "id": "small",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "edgeserve",
        "state": "loaded",
        "nodes": ["pi"],
        "loading": [],
        "on_demand": ["nuc"],
        "abilities": ["chat", "completion"],
        "context": 4096,
        "slots": 2,
    }
    assert (first["name"], first["state"], first["nodes"]) == (
        "small:Q4_1",
        "loaded",
        ["pi"],
    )
    assert (second["name"], second["state"], second["memory"]) == (
        "small:Q8_0",
        "available",
        2**30,
    )
    assert (variant["id"], variant["state"]) == ("small:Q8_0", "available")
    assert (variant["object"], variant["variant_of"]) == ("model", "small")


async def test_a_model_that_loads_says_how_far_it_is() -> None:
    loading = msgspec.structs.replace(an_engine(state="loading"), progress=0.41234)
    async with fake_node(engine=loading) as node, endpoint(node) as balancer:
        (model,) = (await balancer.get("/v1/models")).json["data"]

    assert (model["state"], model["progress"]) == ("loading", 0.412)
    assert (model["nodes"], model["loading"]) == ([], ["pi"])


@pytest.mark.parametrize(
    ("allowed", "seen"),
    [("small", ["small"]), ("small:Q8_0", ["small:Q8_0"]), ("big", [])],
)
async def test_a_key_for_one_variant_sees_that_alone(
    allowed: str, seen: list[str], tmp_path: Path
) -> None:
    secret = "key-of-one-variant-12"
    key = ClientKey(id=key_id(secret), name="ann", models=(allowed,))
    add_key(store_in(tmp_path), key)
    bearer = {"authorization": f"Bearer {secret}"}
    async with (
        fake_node("pi") as pi,
        fake_node("nuc", engine=an_engine("small:Q8_0")) as nuc,
        endpoint(pi, nuc, state_dir=tmp_path) as balancer,
    ):
        listed = (await balancer.get("/v1/models", bearer)).json["data"]
        hidden = await balancer.get("/v1/models/small:Q4_1", bearer)

    assert [each["id"] for each in listed] == seen
    assert hidden.status == (200 if allowed == "small" else 404)
