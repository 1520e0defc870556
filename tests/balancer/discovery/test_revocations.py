"""A revoked node stays out: after a restart, a kill, and for a process that ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from balancer.discovery.revocations import FILE, Revocations
from edgeserve.errors import SettingsError
from edgeserve.runtime.stored import NotStored
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[3]
PI, NUC = "11" * 16, "22" * 16


async def test_what_is_revoked_is_revoked_after_a_restart(tmp_path: Path) -> None:
    before = Revocations(tmp_path, lambda: 7.0)
    await before.revoke(PI, "pi")
    await before.revoke(NUC, "nuc")
    await before.allow(NUC)

    after = Revocations(tmp_path).nodes()
    assert [(id_, each.name, each.since) for id_, each in after.items()] == [
        (PI, "pi", 7.0)
    ]


async def test_a_process_that_hands_over_keeps_a_node_out_too(tmp_path: Path) -> None:
    old, new = Revocations(tmp_path), Revocations(tmp_path)
    await new.revoke(PI, "pi")
    assert PI in old.nodes()

    await new.allow(PI)
    assert PI not in old.nodes()


async def test_two_processes_lose_nothing_of_each_other(tmp_path: Path) -> None:
    old, new = Revocations(tmp_path), Revocations(tmp_path)
    await new.revoke(PI, "pi")
    await old.revoke(NUC, "nuc")

    assert set(new.nodes()) == {PI, NUC}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"revoked": {"a": 1}}'])
def test_a_damaged_file_lets_no_revoked_node_return(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(SettingsError, match=FILE):
        Revocations(tmp_path)


async def test_a_file_damaged_later_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    revocations = Revocations(tmp_path)
    await revocations.revoke(PI, "pi")
    (tmp_path / FILE).write_bytes(b"{")

    for _ in range(3):
        assert PI in revocations.nodes()
    assert caplog.text.count("stay as they were") == 1


async def test_where_nothing_can_be_stored_it_counts_and_is_said(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "state"
    folder.touch()  # a file, where the folder should be
    revocations = Revocations(folder)

    with pytest.raises(NotStored, match="until the balancer ends"):
        await revocations.revoke(PI, "pi")
    assert PI in revocations.nodes()


def test_a_kill_at_any_moment_loses_nothing_acknowledged(tmp_path: Path) -> None:
    script = "tests.balancer.discovery.killed"
    done = subprocess.run(
        [sys.executable, "-m", script, str(tmp_path), "60"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )

    count, *lost = done.stdout.split()
    assert int(count) >= 20  # on a busy machine some are killed before their first
    assert lost == []
