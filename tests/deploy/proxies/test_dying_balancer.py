"""One of two balancers behind a proxy is killed, or stopped, under load."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.balancer.endpoint import eventually
from tests.deploy.proxies.dying import Process, asking, balancers, knowing
from tests.deploy.proxies.programs import PROGRAMS, program, proxy
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine

CLIENTS = 16
LONG = "PROXIES" in os.environ


@pytest.mark.skipif(not LONG, reason="slow: make check-proxies")
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("ends", [Process.kill, Process.stop])
async def test_clients_that_ask_again_lose_nothing(
    name: str, ends: Callable[[Process], None], tmp_path: Path
) -> None:
    program(name)
    slow = Behaviour(decode=40, length=20, slots=4)
    async with (
        fake_node("attic", slow, engine=an_engine(slots=4)) as attic,
        fake_node("cellar", slow, engine=an_engine(slots=4)) as cellar,
    ):
        with balancers(tmp_path, (attic, cellar)) as (first, second):
            await knowing(first, 2)
            await knowing(second, 2)
            addresses = (first.address, second.address)
            with proxy(name, tmp_path, addresses) as here:
                async with asking(here.url, here.trust, CLIENTS) as (clients, answered):
                    await eventually(lambda: answered(3 * CLIENTS))
                    before = clients.count.answered
                    ends(first)
                    await eventually(lambda: answered(before + 6 * CLIENTS))

    count = clients.count
    print(f"{name}, {ends.__name__}: {count}")
    assert count.lost == []
    assert len(count.words) == 1, "an answer is not whole"
    assert count.again <= (CLIENTS if ends is Process.kill else 0)
