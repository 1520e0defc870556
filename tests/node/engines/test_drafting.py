"""A real engine with a draft model writes what it writes without one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.models.facts import read
from edgeserve.wire import Launch
from node.engines.base import EngineSpec
from node.engines.bundled import bundled
from node.models.drafts import drafts_for
from node.models.library import scan
from quantize.dequantize import dequantize
from tests.fakes.aiohttp_relay import upstream
from tests.fakes.engines import a_spec, watching

pytestmark = pytest.mark.engine

PLAIN = Launch(slots=1, context=512, batch=64, threads=1)
DRAFTED = msgspec.structs.replace(
    PLAIN, speculative="draft-simple", draft="small:Q4_1", draft_tokens=4
)
QUESTION = "List the days of the week, then the months of the year."
TOKENS = 32


@pytest.fixture(scope="module")
def spec(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
    """The model in 32 bits a weight, and itself as Q4_1 to draft for it."""
    folder = tmp_path_factory.mktemp("models")
    large = folder / "large.F32.gguf"
    dequantize(read(smollm2), large, "F32", lambda _: None)
    (folder / "small.Q4_1.gguf").symlink_to(smollm2)
    there = {each.variant: each for each in scan(folder).models}
    drafts = drafts_for(there["large:F32"], there.values())
    paths = {variant: facts.path for variant, facts in drafts.items()}
    return a_spec(path=large, launch=PLAIN, drafts=paths)


async def answer(spec: EngineSpec, folder: Path) -> Mapping[str, Any]:
    asks = {
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 2,
    }
    settings = NodeSettings(state_dir=folder)
    async with (
        watching(bundled(), spec, settings) as (supervisor, watched),
        upstream(connect_seconds=30) as way,
    ):
        await watched.until("ready")
        headers = {
            "authorization": f"Bearer {supervisor.api_key}",
            "content-type": "application/json",
        }
        path, body = "/v1/chat/completions", json.dumps(asks).encode()
        async with way.ask(supervisor.origin, "POST", path, headers, body) as said:
            found: Mapping[str, Any] = json.loads(await said.read())
            return found


NEAR = 0.1
"""Two tokens whose log-probabilities differ by less may change places by rounding."""


def gap_where_they_part(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return how far the two best tokens were apart there; 0 where texts are equal."""
    first, second = (each["choices"][0]["logprobs"]["content"] for each in (one, other))
    for mine, theirs in zip(first, second, strict=False):
        if mine["token"] != theirs["token"]:
            best, next_best = mine["top_logprobs"]
            return float(best["logprob"] - next_best["logprob"])
    return 0.0


async def test_the_text_is_the_same_and_guesses_are_accepted(
    spec: EngineSpec, tmp_path: Path
) -> None:
    alone = await answer(spec, tmp_path)
    together = await answer(dataclasses.replace(spec, launch=DRAFTED), tmp_path)

    timings = together["timings"]
    assert "draft_n" not in alone["timings"]
    assert 0 < timings["draft_n_accepted"] <= timings["draft_n"]
    assert timings["draft_n_accepted"] < timings["predicted_n"] == TOKENS
    assert gap_where_they_part(alone, together) < NEAR
