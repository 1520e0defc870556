"""The commands about models, against a whole balancer."""

from __future__ import annotations

import asyncio
from pathlib import Path

from click.testing import CliRunner

from edgeserve.cli.models.listing import models
from tests.balancer.api.models.ruled import Ruled, engine, ruled


async def run(fleet: Ruled, *words: str) -> str:
    """Run `edgeserve models …` and return what it prints."""
    place = ("--url", fleet.endpoint.balancer.origin.url)
    key = ("--api-key-file", str(fleet.key_file))
    done = await asyncio.to_thread(CliRunner().invoke, models, [*words, *place, *key])
    assert done.exception is None, done.output
    return " ".join(done.stdout.split())


async def test_a_model_is_loaded_pinned_limited_and_shown(tmp_path: Path) -> None:
    on_disk = engine("absent", 2.0, memory=2**30, file="small-Q4_1.gguf")
    async with ruled(tmp_path, pi=on_disk) as fleet:
        fleet.nodes["pi"].loads.release()
        listed = await run(fleet)
        loaded = await run(fleet, "load", "small")
        pinned = await run(fleet, "pin", "small")
        limited = await run(fleet, "limit", "small", "--min", "2", "--keep-alive", "1h")
        await fleet.known("pi")
        shown = await run(fleet, "show", "SMALL-q4_1.gguf")
        left = await run(fleet, "unload", "small")

    assert "small available Q4_1 pi 1.0 chat, completion" in listed
    assert loaded.startswith("small:Q4_1 on pi is loaded, after")
    assert pinned == "small is pinned to pi"
    assert "small: at least 2 loaded in the fleet" in limited
    assert "small on pi: pinned, leaves after 3600 idle seconds" in limited
    assert "engine small:Q4_1 on pi: ready, 2 slots of 4096 tokens, 1.0 GiB" in shown
    assert "limits small: min 2" in shown
    assert "desired small on pi: pinned" in shown
    assert "problem small: 2 shall be loaded, but only 1 can be" in shown
    assert left == "small:Q4_1 leaves pi"
