"""Two balancers share a node with a real engine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.fleet.address.clients import Asking, asked
from tests.fleet.asking import client
from tests.fleet.fleet import Fleet, Process, fleet

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif("PROXIES" not in os.environ, reason="slow: make check-proxies"),
]
MODEL = "smollm2-135m-instruct"
SECONDS = 40.0
HEAD_START = 5.0


def ask_at(here: Fleet, balancer: Process, clients: int, seconds: float) -> Asking:
    """Have clients ask a balancer for a while."""
    url, log = f"http://{balancer.host.address}:8080", balancer.folder / "counted"
    return asked(here, url, log, clients=clients, seconds=seconds, model=MODEL)


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
        early = ask_at(here, pair[0], 12, SECONDS + HEAD_START)
        await asyncio.sleep(HEAD_START)  # it has every slot, and a queue
        late = ask_at(here, pair[1], 6, SECONDS)
        first, second = await early.counted(), await late.counted()

    print(f"{first.answered} and {second.answered} answered")
    assert [*first.lost, *second.lost] == []
    fair = first.answered * SECONDS / (SECONDS + HEAD_START)
    assert second.answered > fair * 0.7
