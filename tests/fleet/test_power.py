"""After a power cut the fleet is back: every order, late networks, clocks that jump.

Nothing but processes on hosts: no service manager restarts what gives up. `POWER=20`
makes twenty cuts; the numbers are the seeds of what happens.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.fleet.asking import Client, Got, client
from tests.fleet.fleet import ROOT, SECONDS, Fleet, Process, fleet, until

CUTS = int(os.environ.get("POWER", "2"))
NODES = ("attic", "cellar", "kitchen")
BALANCER = "balancer"

CLOCKS = Path(__file__).parent / "clocks"

DAY = 86400
TRUE = 0
WRONG = (-20000 * DAY, -3 * DAY, -5400, 7200, 400 * DAY)
"""A clock without a battery starts in the seventies; others are off by more or less."""


class House:
    """Four machines that lose their power together."""

    def __init__(self, made: Fleet, flags: list[str]) -> None:
        self.fleet = made
        self.machines: dict[str, Process] = {}
        self.away = set[str]()
        """Machines that have no address."""
        for name in NODES:
            self._add(name, "node", "start", "--port", "8090", "--name", name, *flags)
        argv = ("start", "--port", "8080", "--anonymous")
        self._add(BALANCER, "balancer", *argv)

    def _add(self, name: str, *argv: str) -> None:
        machine = self.fleet.start(self.fleet.network.host(name), *argv)
        machine.lose_power()
        machine.environ = {
            "PYTHONPATH": f"{CLOCKS}{os.pathsep}{ROOT}",
            "FAKE_CLOCK": str(machine.folder / "clock"),
        }
        self.machines[name] = machine

    def set_clock(self, name: str, offset: int) -> None:
        """Have a machine's clock jump."""
        file = self.machines[name].folder / "clock"
        part = file.with_name("clock.part")
        part.write_text(f"{offset}\n")
        part.replace(file)

    def lose_power(self) -> None:
        """End everything; an address that a failed test left away is taken again."""
        for name, machine in self.machines.items():
            machine.lose_power()
            if name in self.away:
                machine.host.take_address(machine.host.address)
        self.away.clear()

    async def listening(self, name: str) -> None:
        machine = self.machines[name]
        await until(lambda: "listening on" in machine.log, f"{name} listens")


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, fake_engine: list[str]
) -> Generator[House]:
    with fleet(tmp_path_factory.mktemp("power")) as made:
        yield House(made, fake_engine)


def test_the_clock_of_a_machine_is_wrong_for_all_that_reads_it(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text(f"{WRONG[0]}\n")
    script = "import time, datetime as d; print(time.time(), d.datetime.now().year)"

    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(CLOCKS), "FAKE_CLOCK": str(clock)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )

    now, year = done.stdout.split()
    assert abs(float(now) - time.time() - WRONG[0]) < SECONDS
    assert int(year) < 1980


def shuffled(chance: random.Random) -> list[str]:
    return chance.sample([*NODES, BALANCER], k=len(NODES) + 1)


def power_returns(house: House, chance: random.Random) -> None:
    """Start every machine, some with a wrong clock, some before their network is up."""
    late = [name for name in house.machines if chance.random() < 0.5]
    for name, machine in house.machines.items():
        (machine.folder / "log").unlink(missing_ok=True)
        house.set_clock(name, chance.choice((TRUE, *WRONG)))
        if name in late:
            machine.host.lose_address()
            house.away.add(name)
    for name in shuffled(chance):
        house.machines[name].start()


async def each_answers(ask: Client) -> list[Got]:
    """Ask more than the slots can take, until every node has answered; returns all."""
    before = {each["id"] for each in await ask.requests()}
    asked, answered = list[Got](), set[str]()
    deadline = time.monotonic() + SECONDS
    while not answered >= set(NODES):
        burst = [Got() for _ in range(3 * len(NODES))]
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*map(ask.stream, burst))
        asked += burst
        found = [each for each in await ask.requests() if each["id"] not in before]
        answered = {each["attempts"][-1]["node"] for each in found if each["attempts"]}
        health = {name: each["health"] for name, each in (await ask.nodes()).items()}
        assert time.monotonic() < deadline, f"only {answered} answer; {health}"
    return asked


@pytest.mark.parametrize("cut", range(CUTS))
async def test_after_a_power_cut_every_node_serves_without_help(
    cut: int, house: House
) -> None:
    chance = random.Random(cut)  # noqa: S311 - the seed has to bring the cut back
    house.lose_power()

    power_returns(house, chance)
    for name in shuffled(chance):
        if name in house.away:
            host = house.machines[name].host
            host.take_address(host.address)
            house.away.remove(name)
        if chance.random() < 0.5:
            await house.listening(name)
            house.set_clock(name, TRUE)
    async with client(house.fleet, house.machines[BALANCER]) as ask:
        await ask.serving(*NODES)
        first = await each_answers(ask)
        for name in shuffled(chance):
            house.set_clock(name, chance.choice((TRUE, *WRONG)))
        after_jumps = await each_answers(ask)

    assert [each for each in (*first, *after_jumps) if not each.whole] == []
