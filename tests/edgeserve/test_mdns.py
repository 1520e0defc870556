from __future__ import annotations

import asyncio
import ctypes
import logging
import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from edgeserve import mdns
from edgeserve.mdns import HostInterface, chosen, default_routes, limit, ranked
from edgeserve.mdns import multicast as speaking
from edgeserve.network import by_name
from tests.fleet.network import CLONE_NEWNET, impossible, ip
from tests.patience import PATIENCE

CROWD = 25


def test_where_other_machines_are_comes_first() -> None:
    places = [
        HostInterface(name="docker0", index=2, connected=True),
        HostInterface(name="br-0123456789ab", index=3, connected=True),
        HostInterface(name="tun0", index=4),
        HostInterface(name="wg0", index=5, connected=True),
        HostInterface(name="lo", index=1, loopback=True),
        HostInterface(name="enp3s0", index=7, physical=True, connected=True),
        HostInterface(name="wlan0", index=9, physical=True, connected=True),
        HostInterface(name="br0", index=11, default=True),
    ]

    assert [each.name for each in ranked(places)] == [
        "br0",
        "enp3s0",
        "wlan0",
        "lo",
        "wg0",
        "tun0",
        "docker0",
        "br-0123456789ab",
    ]


def test_the_default_routes_are_read(tmp_path: Path) -> None:
    net = tmp_path / "proc/net"
    net.mkdir(parents=True)
    head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
    lan = "eth0 00000000 0100A8C0 0003 0 0 100 00000000 0 0 0\n"
    half = "tun0 00000000 00000000 0001 0 0 0 00000080 0 0 0\nnonsense\n"
    (net / "route").write_text(head + lan + half)
    zeros = "0" * 32
    rest = "00000400 00000001 00000000"
    (net / "ipv6_route").write_text(
        f"{zeros} 00 {zeros} 00 {zeros} {rest} 00000003 wlan0\n"
        f"{zeros} 00 {zeros} 00 {zeros} {rest} 00200200 lo\n"
        f"{zeros} 40 {zeros} 00 {zeros} {rest} 00000001 eth7\n"
    )

    assert default_routes(tmp_path) == {"eth0", "wlan0"}


@pytest.mark.parametrize(("said", "most"), [("64\n", 64), ("", 20), ("x", 20)])
def test_the_kernels_limit_is_read(said: str, most: int, tmp_path: Path) -> None:
    (tmp_path / "proc/sys/net/ipv4").mkdir(parents=True)
    (tmp_path / mdns.LIMIT).write_text(said)

    assert limit(tmp_path) == most


def test_where_there_is_no_limit_every_interface_is_used(tmp_path: Path) -> None:
    assert limit(tmp_path) is None
    assert chosen(tmp_path) is None


def test_interfaces_without_ipv4_take_no_place_from_those_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "proc/sys/net/ipv4").mkdir(parents=True)
    (tmp_path / mdns.LIMIT).write_text("2")
    places = [
        HostInterface(name="lan", index=1, ipv4="10.0.0.2", ipv6=True, default=True),
        *(HostInterface(name=f"tap{each}", index=each, ipv6=True) for each in (2, 3)),
        HostInterface(name="wg0", index=4, ipv4="10.1.0.2"),
        HostInterface(name="docker0", index=5, ipv4="172.17.0.1"),
    ]
    monkeypatch.setattr(mdns, "_candidates", lambda *_: places)
    monkeypatch.setattr(mdns, "_count_interfaces", lambda: len(places))

    assert chosen(tmp_path) == ["10.0.0.2", "10.1.0.2", 1, 2]
    assert "nodes behind tap3, docker0 are" in caplog.text


@pytest.mark.fleet
@pytest.mark.skipif(impossible() is not None, reason=impossible() or "")
def test_on_a_machine_with_many_interfaces_the_lan_is_heard() -> None:
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    child = spawning.Process(target=_in_a_crowd, args=(theirs,))
    child.start()
    theirs.close()
    try:
        assert ours.poll(PATIENCE), "the child said nothing"
        joined, said, together = ours.recv()
    finally:
        child.kill()
        child.join(10)

    assert {"lan", "lo"} <= joined
    assert len(joined) == 20
    assert together > 20
    assert said.count("network interfaces, and net.ipv4.igmp_max_memberships") == 1
    assert "docker" in said
    assert "lan" not in said


def _in_a_crowd(pipe: Connection) -> None:
    """Open mDNS in a network of its own, with the LAN among Docker's bridges."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    ip("link", "set", "lo", "up")
    names = [f"docker{index}" for index in range(CROWD)]
    for index, name in enumerate([*names, "lan"]):
        ip("link", "add", name, "type", "veth", "peer", "name", f"veth{index}")
        ip("addr", "add", f"10.77.{index}.2/24", "dev", name)
        ip("link", "set", name, "up")
        ip("link", "set", f"veth{index}", "up")
    ip("route", "add", "default", "via", f"10.77.{CROWD}.1")
    while not {*names, "lan"} <= set(by_name()):  # a cable is noticed after a moment
        time.sleep(0.05)
    said = list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    joined = asyncio.run(_joined())
    pipe.send((joined, "\n".join(said), len(by_name())))


async def _joined() -> set[str]:
    """Return the interfaces that take in mDNS, before and after an update."""
    async with speaking(loopback_only=False, instead="") as zeroconf:
        assert zeroconf is not None
        await zeroconf.async_update_interfaces()
        return members()


def members() -> set[str]:
    """Read which interfaces are in the group of mDNS, 224.0.0.251."""
    found, name = set[str](), ""
    for line in Path("/proc/net/igmp").read_text().splitlines()[1:]:
        fields = line.split()
        if not line.startswith("\t"):
            name = fields[1].rstrip(":")
        elif fields[0] == "FB0000E0":
            found.add(name)
    return found
