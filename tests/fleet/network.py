"""Real machines' networks on one machine: network namespaces on a bridge.

Namespaces are named after this process, so runs do not meet, and what a killed run left
behind is swept away by the next.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PREFIX = "edgeserve-test"
NAMESPACES = Path("/run/netns")
ETC = Path("/etc/netns")
"""`ip netns exec` shows the files of a namespace's folder here as those of /etc."""

CLONE_NEWNET = 0x40000000
SUBNET = "10.77.0"

_libc = ctypes.CDLL(None, use_errno=True)


def impossible() -> str | None:
    """Say why networks cannot be made here, or None."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    if shutil.which("ip") is None:
        return "needs `ip` (iproute2)"
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode:
        return "this kernel or container makes no network namespaces"
    return None


def ip(*argv: str) -> None:
    """Run `ip …`, or fail with what it said."""
    done = subprocess.run(["ip", *argv], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(argv)}: {done.stderr.strip()}")


@dataclass
class Host:
    """One machine on the network."""

    name: str
    namespace: str
    switch: str
    address: str

    def spawn(
        self, argv: Sequence[str], env: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a program on this host; its output goes to `log`."""
        with log.open("ab") as out:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *argv],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def processes(self) -> list[int]:
        """List the process ids on this host."""
        argv = ["ip", "netns", "pids", self.namespace]
        done = subprocess.run(argv, capture_output=True, timeout=30, check=True)
        return [int(each) for each in done.stdout.split()]

    def has_file(self, name: str, text: str) -> None:
        """Have a file of this name in /etc, whatever this machine has there."""
        folder = ETC / self.namespace
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    def move_to(self, address: str) -> None:
        """Change the address, as a new lease does."""
        self.lose_address()
        self.take_address(address)

    def take_address(self, address: str) -> None:
        """Have an IPv4 address from now on."""
        ip("-n", self.namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        self.address = address

    def lose_address(self) -> None:
        """Have no IPv4 address; a link-local IPv6 one remains."""
        ip("-n", self.namespace, "addr", "del", f"{self.address}/24", "dev", "eth0")

    def unplug(self) -> None:
        """Pull the cable: nothing is said, nothing arrives."""
        ip("-n", self.switch, "link", "set", "dev", self.name, "down")

    def plug_in(self) -> None:
        """Put the cable back."""
        ip("-n", self.switch, "link", "set", "dev", self.name, "up")

    def socket(self, family: int, type_: int, proto: int) -> socket.socket:
        """Make a socket that speaks from this host, whichever thread uses it."""
        ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        theirs = os.open(NAMESPACES / self.namespace, os.O_RDONLY)
        try:
            _enter(theirs)
            try:
                return socket.socket(family, type_, proto)
            finally:
                _enter(ours)
        finally:
            os.close(ours)
            os.close(theirs)


@dataclass
class Network:
    """A switch and the hosts on it."""

    id: str
    switch: str
    hosts: list[Host] = field(default_factory=list[Host])

    def host(self, name: str) -> Host:
        """Plug in another machine."""
        number = len(self.hosts) + 1
        host = Host(name, f"{self.id}-{name}", self.switch, f"{SUBNET}.{number}")
        _add_namespace(host.namespace)
        self.hosts.append(host)
        ip("link", "add", "eth0", "netns", host.namespace, "type", "veth",
           "peer", "name", name, "netns", self.switch)  # fmt: skip
        ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
        ip("-n", host.namespace, "link", "set", "lo", "up")
        ip("-n", host.namespace, "link", "set", "eth0", "up")
        ip("-n", self.switch, "link", "set", "dev", name, "master", "bridge", "up")
        return host

    def drop_multicast(self) -> None:
        """Let only unicast and broadcast through, as careful access points do."""
        for host in self.hosts:
            port = ("dev", host.name, "type", "bridge_slave")
            ip("-n", self.switch, "link", "set", *port, "mcast_flood", "off")


@contextmanager
def network() -> Generator[Network]:
    """Make a network for the length of the block; all of it goes, whatever happens."""
    _sweep()
    id_ = f"{PREFIX}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    net = Network(id_, f"{id_}-switch")
    try:
        _add_namespace(net.switch)
        ip("-n", net.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", net.switch, "link", "set", "bridge", "up")
        yield net
    finally:
        for path in NAMESPACES.glob(f"{id_}-*"):
            _remove(path.name)


def _add_namespace(name: str) -> None:
    ip("netns", "add", name)


def _sweep() -> None:
    """Remove what a killed run left behind."""
    for path in NAMESPACES.glob(f"{PREFIX}-*"):
        pid = path.name.removeprefix(f"{PREFIX}-").partition("-")[0]
        if not Path("/proc", pid).exists():
            _remove(path.name)


def _remove(namespace: str) -> None:
    subprocess.run(["ip", "netns", "del", namespace], check=False, timeout=30)
    shutil.rmtree(ETC / namespace, ignore_errors=True)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
