from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fleet.asking import Got, client
from tests.fleet.fleet import SECONDS, fleet, until

pytestmark = pytest.mark.engine
MODEL = "smollm2-135m-instruct"


async def test_real_engines_are_found_and_one_that_dies_is_stood_in_for(
    tmp_path: Path, smollm2: Path
) -> None:
    flags = ("--engine", "bundled", "--model", str(smollm2), "--threads", "1")
    with fleet(tmp_path) as made:
        hosts = {name: made.network.host(name) for name in ("left", "right")}
        nodes = {name: made.node(hosts[name], "--name", name, *flags) for name in hosts}
        balancer = made.balancer(made.network.host("balancer"))
        async with client(made, balancer) as ask:
            await ask.serving("left", "right")
            asked = [Got() for _ in range(4)]
            tasks = [
                asyncio.create_task(ask.stream(each, MODEL, tokens=32))
                for each in asked
            ]
            victim = await ask.at_work()
            nodes[victim].kill()
            async with asyncio.timeout(SECONDS):
                await asyncio.gather(*tasks)
            await until(lambda: not hosts[victim].processes(), "its engine is gone")

    assert [each for each in asked if not each.whole] == []
