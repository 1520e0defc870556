"""`edgeserve up --lan` on one machine, a second one that joins, requests to both."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.fakes.gguf import a_model
from tests.fleet.asking import Client
from tests.fleet.fleet import Fleet, Process, answer, fleet, until
from tests.fleet.llama_server import script
from tests.fleet.network import Host

SECRETS = ("token", "api-keys")
BODY = {
    "model": "small",
    "messages": [{"role": "user", "content": "word"}],
    "max_tokens": 4,
}


def a_machine(made: Fleet, host: Host) -> Path:
    """A home that has EdgeServe and a model, and neither token nor key."""
    folder = made.folder / host.name
    for name in ("config", "models"):
        (folder / name).mkdir(parents=True)
    engine = script(folder / "llama-server")
    (folder / "config" / "edgeserve.toml").write_text(
        f'[node]\nname = "{host.name}"\nllama_server = "{engine}"\nslots = 1\n'
    )
    a_model(folder / "models" / "small-F16.gguf")
    return folder


def started(made: Fleet, host: Host, folder: Path, *argv: str) -> Process:
    process = Process(host, folder, list(argv))
    made.processes.append(process)
    process.start()
    return process


@dataclass
class Household:
    """The first machine, which serves, and one that is new."""

    fleet: Fleet
    first: Host
    second: Host
    folders: dict[str, Path]
    up: Process

    @property
    def url(self) -> str:
        return f"http://{self.first.address}:8080"

    @property
    def config(self) -> Path:
        return self.folders["first"] / "config"

    def serve(self) -> None:
        """Run `up --lan` on the first machine."""
        argv = ("up", "--lan", "--model", "small-F16.gguf")
        folder = self.folders["first"]
        self.up = started(self.fleet, self.first, folder, *argv)

    async def greeted(self) -> str:
        await until(lambda: "Ctrl-C stops it" in self.up.log, "it has greeted")
        return self.up.log

    def key(self) -> str:
        *_, key = (self.config / "api-keys").read_text().split()
        return key


@asynccontextmanager
async def household(folder: Path) -> AsyncGenerator[Household]:
    with fleet(folder) as made:
        hosts = [made.network.host(name) for name in ("first", "second")]
        folders = {each.name: a_machine(made, each) for each in hosts}
        idle = Process(hosts[0], folder, [])
        found = Household(made, hosts[0], hosts[1], folders, idle)
        found.serve()
        yield found


@asynccontextmanager
async def asking(home: Household) -> AsyncGenerator[aiohttp.ClientSession]:
    async with home.fleet.asking(home.url) as session:
        session.headers["Authorization"] = f"Bearer {home.key()}"
        yield session


async def joined(home: Household) -> None:
    """Paste the line that the first machine shows, and approve there."""
    folder = home.folders["second"]
    join = started(home.fleet, home.second, folder, "join", home.url, "--yes")
    await until(lambda: "asks to join with code" in join.log, "it asks")
    (code,) = re.findall(r"with code (\S+?)\.", join.log)
    argv = ["nodes", "approve", "second", "--code", code]
    approve = Process(home.first, home.folders["first"], argv)
    approve.start()
    assert await approve.ended() == 0, approve.log
    assert await join.ended() == 0, join.log


async def test_a_second_machine_joins_with_the_line_shown_and_both_answer(
    tmp_path: Path,
) -> None:
    async with household(tmp_path) as home:
        said = await home.greeted()
        await joined(home)
        line = f"edgeserve node start --balancer {home.url}"
        started(home.fleet, home.second, home.folders["second"], *line.split()[1:])
        async with asking(home) as session:
            await Client(session).serving("first", "second")

            async def served() -> str:
                async with session.post("/v1/chat/completions", json=BODY) as got:
                    assert got.status == 200
                    return got.headers["x-edgeserve-node"]

            async def several() -> set[str]:
                """Ask more at once than one machine has slots for."""
                return set(await asyncio.gather(*(served() for _ in range(6))))

            seen = await answer(several, lambda names: len(names) > 1, "both answer")

    assert f"edgeserve join {home.url} && {line}" in said
    assert seen == {"first", "second"}


async def test_the_key_is_needed_and_the_same_command_again_makes_nothing_new(
    tmp_path: Path,
) -> None:
    async with household(tmp_path) as home:
        said = await home.greeted()
        files = {each: (home.config / each).read_bytes() for each in SECRETS}
        async with home.fleet.asking(home.url) as session:
            refused = (await session.get("/v1/models")).status
        home.up.ask_to_stop()
        assert await home.up.ended() == 0
        (home.folders["first"] / "log").unlink()
        home.serve()
        again = await home.greeted()
        async with asking(home) as session:
            allowed = (await session.get("/v1/models")).status

    assert (refused, allowed) == (401, 200)
    assert "made a fleet token" in said
    assert "made a" not in again
    assert {each: (home.config / each).read_bytes() for each in SECRETS} == files
    assert home.key() not in said + again
