"""A network of bare machines, which reach the package indexes that are reached here.

Its way out is slirp4netns, a process that turns what the machines send into sockets of
this machine. So neither routes nor firewall rules are changed here.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.fleet.network import NAMESPACES, SUBNET, Network, ip, network
from tests.rootfs.machine import PLAIN, Limits, Machine, machine

OUT = "128/25"
"""The part of the network that the way out answers for."""
GATEWAY = f"{SUBNET}.130"
RESOLVER = f"{SUBNET}.131"


@dataclass
class Lan:
    """A network to plug bare machines into."""

    network: Network

    @contextmanager
    def machine(
        self, base: Path, name: str, limits: Limits = PLAIN
    ) -> Generator[Machine]:
        """Start a machine that has an address, a way out and names of hosts."""
        host = self.network.host(name)
        ip("-n", host.namespace, "route", "add", "default", "via", GATEWAY)
        resolver = {"/etc/resolv.conf": f"nameserver {RESOLVER}\n"}
        limits = replace(limits, files=resolver | dict(limits.files))
        with machine(base, name, host.namespace, limits) as started:
            yield started


@contextmanager
def lan() -> Generator[Lan]:
    """Make a network with a way out for the length of the block."""
    with network() as made, _way_out(made.switch):
        yield Lan(made)


@contextmanager
def _way_out(switch: str) -> Generator[None]:
    ready, started = os.pipe()
    ended, end = os.pipe()
    argv = ["slirp4netns", "--netns-type=path", f"--cidr={SUBNET}.{OUT}",
            "--disable-host-loopback", f"--ready-fd={started}", f"--exit-fd={ended}",
            "--mtu=1500", str(NAMESPACES / switch), "out"]  # fmt: skip
    process = subprocess.Popen(
        argv,
        pass_fds=(started, ended),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(started)
    os.close(ended)
    try:
        if not os.read(ready, 1):
            raise RuntimeError("slirp4netns did not start")
        ip("-n", switch, "link", "set", "out", "master", "bridge", "up")
        port = ("dev", "out", "type", "bridge_slave")
        ip("-n", switch, "link", "set", *port, "mcast_flood", "off")
        yield
    finally:
        os.close(end)
        os.close(ready)
        process.wait()
