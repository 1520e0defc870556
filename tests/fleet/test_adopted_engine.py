"""A llama.cpp server started by hand, on loopback, serves in the fleet."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from edgeserve.wire import Launch
from node.engines.base import EngineSpec
from node.engines.bundled import PARAMETERS, bundled
from tests.fleet.asking import Got, client
from tests.fleet.fleet import ROOT, SECONDS, fleet, until
from tests.fleet.network import Host

pytestmark = pytest.mark.engine
USUAL = 8080
SERVER = "den/llama-server"


def by_hand(host: Host, model: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start it on a host, at 127.0.0.1 and its usual port, without a key."""
    spec = EngineSpec(
        id="smol",
        model="smol",
        variant="smol",
        path=model,
        role="generate",
        abilities=("chat", "completion"),
        launch=Launch(slots=2, context=1024, batch=128, threads=1),
    )
    command = bundled().command(spec, port=USUAL, api_key="")
    given = json.loads(command.env[PARAMETERS]) | {"api_keys": []}
    env = {**os.environ, **command.env, PARAMETERS: json.dumps(given)}
    env["PYTHONPATH"] = str(ROOT)
    return host.spawn(command.argv, env, folder / "engine.log")


async def test_a_server_on_the_loopback_of_a_node_is_found_by_mdns_and_found_again(
    tmp_path: Path, smollm2: Path
) -> None:
    with fleet(tmp_path) as made:
        den = made.network.host("den")
        engine = by_hand(den, smollm2, tmp_path)
        try:
            node = made.node(den, "--name", "den", "--adopt")
            balancer = made.balancer(made.network.host("balancer"))
            async with client(made, balancer) as ask:
                await ask.serving(SERVER)
                broken = Got()
                asking = asyncio.create_task(ask.stream(broken, "smol", tokens=400))
                await until(lambda: not broken.silent, "it answers")
                engine.kill()
                async with asyncio.timeout(SECONDS):
                    await asking
                await until(lambda: "is gone" in node.log, "the node sees its end")
                engine.wait(SECONDS)
                engine = by_hand(den, smollm2, tmp_path)
                await ask.serving(SERVER)
                again = Got()
                await ask.stream(again, "smol", tokens=8)
        finally:
            engine.kill()
            engine.wait(SECONDS)

    assert broken.status == 200
    assert b'"error"' in broken.body
    assert b"broke off" in broken.body
    assert again.whole
    assert node.log.count("adopts llama-server at http://127.0.0.1:8080: 1 model") == 2
    assert f"{SERVER} joined (2 slots)" in balancer.log
