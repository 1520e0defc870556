"""A bare machine is apart from this one, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.rootfs.base import NATIVE, base, cache, impossible
from tests.rootfs.lan import Lan, lan
from tests.rootfs.machine import Limits, machine

pytestmark = pytest.mark.skipif(
    impossible() is not None or not any(cache().glob(f"*-{NATIVE}")),
    reason=impossible()
    or "there is no root file system yet; `make check-debian` makes it",
)


@pytest.fixture
def network() -> Generator[Lan]:
    with lan() as made:
        yield made


def test_a_machine_has_its_own_processes_name_network_and_files(network: Lan) -> None:
    with network.machine(base(), "attic") as attic:
        seen = attic.run("hostname; echo $$; ls /sys/class/net; ls -A /srv")
        attic.run("echo kept >/srv/note")
        written = attic.outside("/srv/note").read_text()

    name, shell, *links = seen.stdout.split()[:4]
    assert (name, links) == ("attic", ["eth0", "lo"])
    assert int(shell) < 100
    assert written == "kept\n"
    assert not (base() / "srv/note").exists()
    assert not attic.folder.exists()
    assert not Path("/proc", str(attic.pid)).exists()


def test_two_machines_of_a_network_reach_each_other(network: Lan) -> None:
    with network.machine(base(), "attic"), network.machine(base(), "cellar") as cellar:
        attic = network.network.hosts[0].address
        answer = cellar.run(
            f"bash -c 'echo >/dev/tcp/{attic}/9'", check=False, timeout=30
        )

    assert "Connection refused" in answer.stderr


def test_a_machine_can_be_read_only_and_sees_what_is_shared(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("seen\n")
    limits = Limits(read_only=True, shm="64m", shares={tmp_path: "/mnt/house"})

    with machine(base(), "box", limits=limits) as box:
        read = box.run("cat /mnt/house/note; df -m --output=size /dev/shm | tail -n 1")
        refused = box.run("touch /root/a; touch /mnt/house/b", check=False)

    assert read.stdout.split() == ["seen", "64"]
    assert refused.stderr.count("Read-only file system") == 2
