from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest

from edgeserve.reports.hardware import Cpu
from edgeserve.reports.sleep import NetworkCard
from node.hardware.cards import cards, parse_ethtool
from node.hardware.owner import Session, attended, in_use, parse_sessions
from tests.node.building import some_hardware

NOW = 10_000.0


def a_session(**fields: str) -> str:
    usual = {"Class": "user", "Name": "ada", "Type": "wayland", "State": "active"}
    return "\n".join(f"{name}={said}" for name, said in (usual | fields).items())


def said(shown: str, root: Path) -> str:
    return attended(parse_sessions(shown, NOW, root))


def test_a_screen_in_use_is_use_and_one_that_is_idle_for_long_is_not(
    tmp_path: Path,
) -> None:
    long_ago = str(int((NOW - 3600) * 1e6))
    just_now = str(int((NOW - 60) * 1e6))

    assert said(a_session(IdleHint="no"), tmp_path) == "ada used wayland 0 s ago"
    idle = a_session(IdleHint="yes", IdleSinceHint=just_now)
    assert said(idle, tmp_path) == "ada used wayland 60 s ago"
    assert said(a_session(IdleHint="yes", IdleSinceHint=long_ago), tmp_path) == ""


def test_sessions_of_the_system_and_of_those_who_leave_are_no_use(
    tmp_path: Path,
) -> None:
    both = [a_session(Class="manager"), a_session(State="closing")]

    assert said("\n\n".join(both), tmp_path) == ""


def test_a_terminal_tells_when_it_was_typed_at(tmp_path: Path) -> None:
    terminal = tmp_path / "dev/pts/3"
    terminal.parent.mkdir(parents=True)
    terminal.touch()
    shown = a_session(Type="tty", TTY="pts/3", IdleHint="no")
    os.utime(terminal, (NOW - 5, 0))
    assert said(shown, tmp_path) == "ada used pts/3 5 s ago"

    os.utime(terminal, (NOW - 3600, 0))
    assert said(shown, tmp_path) == ""


def test_who_tells_no_idle_time_counts_as_there() -> None:
    assert "tells no idle time" in attended([Session(name="a", at="b", idle=None)])


@pytest.mark.parametrize(("load", "use"), [(0.1, False), (0.5, True)])
def test_other_programs_are_use_unless_the_engines_work(
    load: float, use: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.users", list)
    cpu = Cpu(model="x", physical_cores=4, logical_cores=4, load=load)
    hardware = some_hardware(cpu=cpu)

    assert bool(in_use(hardware, working=False, root=Path("/nowhere"))) == use
    assert in_use(hardware, working=True, root=Path("/nowhere")) == ""


def test_cards_are_told_with_their_network_and_those_first_that_wake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    macs = {"eth0": "aa:bb:cc:00:00:02", "wlan0": "AA:BB:CC:00:00:01", "tun0": ""}
    for name, mac in macs.items():
        folder = tmp_path / "sys/class/net" / name
        (folder / "device/power").mkdir(parents=True)
        (folder / "address").write_text(mac)
    (tmp_path / "sys/class/net/eth0/device/power/wakeup").write_text("enabled\n")
    network = (ipaddress.IPv4Interface("192.168.7.9/24"),)
    found = cards(tmp_path, dict.fromkeys((*macs, "docker0"), network))

    wired = NetworkCard(mac=macs["eth0"], broadcast="192.168.7.255", wakes=True)
    wireless = NetworkCard(mac="aa:bb:cc:00:00:01", broadcast="192.168.7.255")
    assert found == (wired, wireless)


def test_ethtool_says_whether_a_magic_packet_wakes() -> None:
    shown = "Settings for eth0:\n\tSupports Wake-on: pumbg\n\tWake-on: {}\n"

    assert parse_ethtool(shown.format("g")) is True
    assert parse_ethtool(shown.format("d")) is False
    assert parse_ethtool("no permission") is None
