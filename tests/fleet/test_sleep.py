"""A machine sleeps, is called, wakes and answers: real processes on a network."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest

from tests.fleet.asking import Client, client
from tests.fleet.fleet import ROOT, Fleet, Process, answer, fleet, until
from tests.fleet.sleeping import SleepingMachine, sleeping_machine

BODY = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}


class Attic:
    """A balancer, and a machine that may sleep."""

    def __init__(self, made: Fleet, flags: list[str]) -> None:
        self.fleet = made
        self.machine: SleepingMachine = sleeping_machine(made, "attic", flags)
        host = made.network.host("balancer")
        self.balancer: Process = made.balancer(
            host, "--no-calibrate", "--sleep-after", "2"
        )


@pytest.fixture
async def attic(tmp_path: Path, fake_engine: list[str]) -> AsyncGenerator[Attic]:
    """Run them on a network of their own."""
    with fleet(tmp_path) as made:
        yield Attic(made, fake_engine)


async def asleep(ask: Client, *, slept: bool = True) -> None:
    """Wait until the balancer says that the machine sleeps, or does not."""
    await answer(
        ask.nodes,
        lambda nodes: (nodes.get("attic", {"state": ""})["state"] == "asleep") == slept,
        f"the machine sleeps: {slept}",
    )


async def asked(session: aiohttp.ClientSession) -> str:
    """Ask for a short answer; return which node gave it."""
    async with session.post("/v1/chat/completions", json=BODY) as got:
        assert got.status == 200, await got.text()
        return got.headers["x-edgeserve-node"]


async def ordered(attic: Attic, action: str) -> str:
    """Run `edgeserve nodes sleep` or `wake` where the balancer runs; what it says."""
    folder, host = attic.balancer.folder, attic.balancer.host
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "EDGESERVE_STATE_DIR": str(folder / "state"),
        "EDGESERVE_CONFIG_DIR": str(folder / "config"),
    }
    argv = [sys.executable, "-m", "edgeserve", "nodes", action, "attic"]
    log = folder / f"{action}-{len(list(folder.iterdir()))}"
    running = host.spawn(argv, env, log)
    await until(lambda: running.poll() is not None, f"nodes {action} ends")
    return log.read_text()


async def test_a_request_wakes_the_machine_that_alone_has_its_model(
    attic: Attic,
) -> None:
    machine = attic.machine
    async with client(attic.fleet, attic.balancer) as ask:
        await machine.sleeps()  # by itself: nothing has needed it
        await asleep(ask)
        async with ask.session.get("/v1/models") as got:
            listed = [each["id"] for each in (await got.json())["data"]]
        request = asyncio.ensure_future(asked(ask.session))
        frame = await machine.is_woken()

        assert "small" in listed
        assert frame[:6] == b"\xff" * 6, "a broadcast on the wire"
        assert await request == "attic"
        await asleep(ask, slept=False)


async def test_it_sleeps_by_order_but_not_while_a_person_uses_it(
    attic: Attic,
) -> None:
    machine = attic.machine
    machine.users.write_text("ada")
    async with client(attic.fleet, attic.balancer) as ask:
        await ask.serving("attic")
        assert "attic: it stays awake: ada is" in await ordered(attic, "sleep")

        machine.users.unlink()
        assert "goes to sleep" in await ordered(attic, "sleep")
        await machine.sleeps()
        attic.balancer.kill()
        attic.balancer.start()
        await asleep(ask)  # the next process knows it, too

        woken = asyncio.ensure_future(machine.is_woken())
        assert "being woken" in await ordered(attic, "wake")
        await woken
        await ask.serving("attic")
