"""A fleet of real processes, each on a host of its own, and a client to ask it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from tests.fleet.network import Host, Network, network

TOKEN = "fleet-token-of-the-tests"
SECONDS = 90.0
"""Longest wait for anything: processes start slowly on a machine that is busy."""

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


@dataclass
class Process:
    """A node or a balancer on its host; its folders outlive it."""

    host: Host
    folder: Path
    argv: list[str]
    running: subprocess.Popen[bytes] | None = None
    environ: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def log(self) -> str:
        """What it has said so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start it, again after it was killed."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "EDGESERVE_CONFIG_DIR": str(self.folder / "config"),
            "EDGESERVE_STATE_DIR": str(self.folder / "state"),
            "EDGESERVE_MODELS_DIR": str(self.folder / "models"),
            **self.environ,
        }
        argv = [sys.executable, "-m", "edgeserve", *self.argv]
        self.running = self.host.spawn(argv, env, self.folder / "log")

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.running is not None
        return self.running.pid

    def kill(self) -> None:
        """End it as by a power cut: SIGKILL, without a word."""
        if self.running is not None:
            self.running.kill()
            self.running.wait(SECONDS)
            self.running = None

    def lose_power(self) -> None:
        """End everything on its host at once, engines too, without a word."""
        for pid in self.host.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kill()

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)

    async def ended(self) -> int:
        """Wait for its end; returns its exit status."""
        running = self.running
        assert running is not None
        await until(lambda: running.poll() is not None, "it ended")
        self.running = None
        return running.returncode


@dataclass
class Fleet:
    """Processes on a network, and the host that asks them."""

    network: Network
    folder: Path
    client: Host
    processes: list[Process] = field(default_factory=list[Process])

    def node(self, host: Host, *flags: str) -> Process:
        """Start a node."""
        return self.start(host, "node", "start", "--port", "8090", *flags)

    def balancer(self, host: Host, *flags: str) -> Process:
        """Start a balancer that lets every client in."""
        argv = ("balancer", "start", "--port", "8080", "--anonymous", *flags)
        return self.start(host, *argv)

    def start(self, host: Host, *argv: str, **environ: str) -> Process:
        """Start any of the commands; its folders have the fleet token."""
        folder = self.folder / f"{host.name}-{argv[0]}"
        (folder / "config").mkdir(parents=True)
        (folder / "config" / "token").write_text(TOKEN)
        process = Process(host, folder, list(argv), environ=environ)
        self.processes.append(process)
        process.start()
        return process

    @asynccontextmanager
    async def asking(self, at: str) -> AsyncGenerator[aiohttp.ClientSession]:
        """Ask `at`, a base URL, from the client's host."""

        def made(info: Any) -> Any:
            return self.client.socket(*info[:3])

        connector = aiohttp.TCPConnector(socket_factory=made, limit=0)
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession(
            at, connector=connector, timeout=timeout, headers=headers
        ) as session:
            yield session


@contextmanager
def fleet(folder: Path) -> Generator[Fleet]:
    """Make an empty fleet; everything that was started ends with the block."""
    with network() as net:
        made = Fleet(net, folder, net.host("client"))
        try:
            yield made
        finally:
            for process in made.processes:
                process.kill()


async def until(happened: Callable[[], bool], what: str) -> None:
    """Wait for something outside this process that has no event to await."""
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {SECONDS:g} s"
        await asyncio.sleep(0.05)


async def answer(
    ask: Callable[[], Awaitable[T]], wanted: Callable[[T], bool], what: str
) -> T:
    """Ask again and again until the answer is the wanted one; returns it."""
    deadline = time.monotonic() + SECONDS
    said: object = "nothing"
    while time.monotonic() < deadline:
        try:
            found = await ask()
            if wanted(found):
                return found
            said = found
        except (aiohttp.ClientError, OSError) as error:
            said = repr(error)
        await asyncio.sleep(0.05)
    raise AssertionError(f"{what}: not within {SECONDS:g} s; last: {said}")
