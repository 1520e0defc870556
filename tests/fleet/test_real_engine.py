from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fleet.asking import Got, client
from tests.fleet.fleet import fleet, until

pytestmark = pytest.mark.engine
MODEL = "smollm2-135m-instruct"


async def test_real_engines_are_found_and_one_that_dies_is_stood_in_for(
    tmp_path: Path, smollm2: Path
) -> None:
    flags = ("--engine", "bundled", "--model", str(smollm2), "--threads", "1")
    with fleet(tmp_path) as made:
        hosts = [made.network.host(name) for name in ("left", "right")]
        nodes = [made.node(host, "--name", host.name, *flags) for host in hosts]
        balancer = made.balancer(made.network.host("balancer"))
        async with client(made, balancer) as ask:
            await ask.serving("left", "right")
            asked = [Got() for _ in range(4)]
            tasks = [
                asyncio.create_task(ask.stream(each, MODEL, tokens=8)) for each in asked
            ]
            await asyncio.sleep(0.2)  # the prompts are being read, or wait for a slot
            silent = [each for each in asked if not each.body]
            nodes[0].kill()
            async with asyncio.timeout(90):
                await asyncio.gather(*tasks)
            await until(lambda: not hosts[0].processes(), "its engine is gone", 10)

    assert silent
    assert [each.error for each in silent if not each.whole] == []
