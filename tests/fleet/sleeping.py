"""A machine that sleeps and is woken by its network card, as far as others can see."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.fleet.fleet import ROOT, SECONDS, Fleet, Process, until
from tests.fleet.network import Host

ETH_P_ALL = 3
SENSORS = '''
"""Pretended sensors: this machine does nothing else, and who is there is in a file."""

import os
from types import SimpleNamespace

import psutil

THERE = os.environ["PRETENDED_USERS"]


def users():
    names = open(THERE).read().split() if os.path.exists(THERE) else []
    return [SimpleNamespace(name=name, terminal=None) for name in names]


psutil.users = users
psutil.cpu_percent = lambda *_, **__: 0.0
'''


@dataclass
class SleepingMachine:
    """A host with a node. Asleep, nothing runs there; only its card listens."""

    node: Process
    told: Path
    users: Path

    @property
    def host(self) -> Host:
        """Its host."""
        return self.node.host

    async def sleeps(self) -> None:
        """Wait until its node has sent it to sleep; then it is gone."""
        await until(self.told.exists, "the node sends its machine to sleep")
        self.told.unlink()
        self.node.lose_power()
        self.host.lose_address()

    @property
    def mac(self) -> bytes:
        """The address of its card."""
        argv = (self.host.namespace, "cat", "/sys/class/net/eth0/address")
        done = subprocess.run(
            ("ip", "netns", "exec", *argv), capture_output=True, check=True
        )
        return bytes.fromhex(done.stdout.decode().strip().replace(":", ""))

    async def is_woken(self) -> bytes:
        """Listen on the wire for the magic packet; then it comes up. Returns it."""
        magic = b"\xff" * 6 + self.mac * 16
        family = socket.AF_PACKET
        with self.host.socket(family, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as wire:
            wire.setblocking(False)
            wire.bind(("eth0", 0))
            async with asyncio.timeout(SECONDS):
                frame = b""
                while magic not in frame:
                    frame = await asyncio.get_running_loop().sock_recv(wire, 2048)
        self.host.take_address(self.host.address)
        self.node.start()
        return frame


def sleeping_machine(made: Fleet, name: str, flags: list[str]) -> SleepingMachine:
    """Run a node on a machine that may sleep."""
    folder = made.folder / f"{name}-sensors"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SENSORS)
    told, users = folder / "told", folder / "users"
    environ = {"PYTHONPATH": f"{folder}:{ROOT}", "PRETENDED_USERS": str(users)}
    argv = ("node", "start", "--port", "8090", "--name", name)
    node = made.start(
        made.network.host(name), *argv, "--sleep", f"touch {told}", *flags, **environ
    )
    return SleepingMachine(node, told, users)
