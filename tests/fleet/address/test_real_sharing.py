"""Two balancers share a node with a real engine."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fleet.asking import client
from tests.fleet.fleet import ROOT, Fleet, Process, fleet, until

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif("PROXIES" not in os.environ, reason="slow: make check-proxies"),
]
MODEL = "smollm2-135m-instruct"
SECONDS = 40.0
HEAD_START = 5.0


def asked(
    here: Fleet, balancer: Process, clients: int, seconds: float
) -> subprocess.Popen[bytes]:
    """Have clients ask it for a while; what they counted is beside its log."""
    argv = [sys.executable, "-m", "tests.deploy.proxies.dying"]
    argv += [f"http://{balancer.host.address}:8080", str(clients), str(seconds), MODEL]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return here.client.spawn(argv, env, balancer.folder / "counted")


def ended(running: subprocess.Popen[bytes]) -> bool:
    return running.poll() is not None


async def test_a_balancer_that_comes_later_is_served_as_well(
    tmp_path: Path, smollm2: Path
) -> None:
    flags = ("--engine", "bundled", "--model", str(smollm2), "--slots", "2")
    with fleet(tmp_path) as here:
        here.node(here.network.host("attic"), "--name", "attic", *flags)
        pair = [here.balancer(here.network.host(name)) for name in ("first", "second")]
        for each in pair:
            async with client(here, each) as ask:
                await ask.serving("attic")
        running = [asked(here, pair[0], 12, SECONDS + HEAD_START)]
        await asyncio.sleep(HEAD_START)  # it has every slot, and a queue
        running.append(asked(here, pair[1], 6, SECONDS))
        await until(lambda: all(map(ended, running)), "all are done")

    first, second = (
        json.loads((each.folder / "counted").read_text().splitlines()[-1])
        for each in pair
    )
    print(f"{first['answered']} and {second['answered']} answered")
    assert [*first["lost"], *second["lost"]] == []
    fair = first["answered"] * SECONDS / (SECONDS + HEAD_START)
    assert second["answered"] > fair * 0.7
