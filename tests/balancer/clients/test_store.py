"""What `clients.db` holds, and what it keeps of a secret and of a damaged file."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from balancer.clients.database import opened
from balancer.clients.keys import key_id
from balancer.clients.store import (
    NameTaken,
    NoSuchKey,
    UsageCounts,
    add_key,
    add_usage,
    all_keys,
    revoke_key,
    store_in,
)
from balancer.clients.watch import StoredKeys
from tests.balancer.clients.keys import SECRET, Admit, a_key
from tests.edgeserve.damage import damage


def test_a_file_in_a_damaged_store_s_place_is_never_written_to(path: Path) -> None:
    add_key(path, a_key())
    damage(path, "random")
    before = path.read_bytes()

    with pytest.raises(OSError, match="damaged"):
        add_key(path, a_key())
    with pytest.raises(OSError, match="damaged"):
        revoke_key(path, "laptop", 1.0)
    with pytest.raises(OSError, match="damaged"):
        add_usage(path, {("a", "b", "c"): UsageCounts(1)})
    assert path.read_bytes() == before


def test_changes_beside_the_file_are_not_passed_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_key(path, a_key())
    fault = sqlite3.OperationalError("unable to open database file")
    fault.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    path.with_name("clients.db-wal").write_bytes(b"a revocation")

    def broken(*_: object, **__: object) -> sqlite3.Connection:
        raise fault

    monkeypatch.setattr("balancer.clients.database.sqlite3.connect", broken)
    keys = StoredKeys(path)

    assert (keys.keys, keys.problem) == ({}, "unable to open database file")


def test_a_copy_of_the_file_alone_has_every_key_while_a_balancer_runs(
    admit: Admit, path: Path, tmp_path: Path
) -> None:
    add_key(path, a_key())
    admit()
    revoke_key(path, "laptop", 5.0)

    copy = store_in(tmp_path)
    shutil.copy(path, copy)

    assert [key.revoked for key in all_keys(copy)] == [5.0]


def test_the_secret_is_nowhere_in_the_file_and_the_file_is_its_owners(
    path: Path,
) -> None:
    add_key(path, a_key())

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    content = b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert SECRET.encode() not in content
    assert key_id(SECRET).encode() in content


def test_a_name_counts_once_until_it_is_revoked(path: Path) -> None:
    add_key(path, a_key())
    with pytest.raises(NameTaken):
        add_key(path, a_key("another-secret-key"))
    revoke_key(path, "laptop", 1.0)
    add_key(path, a_key("another-secret-key"))

    with pytest.raises(NoSuchKey):
        revoke_key(path, "phone", 1.0)
    assert [each.revoked for each in all_keys(path)] == [1.0, None]


def test_a_file_of_a_later_version_is_refused_by_name(path: Path) -> None:
    add_key(path, a_key())
    connection = opened(path, 1.0)
    connection.execute("PRAGMA user_version = 9")
    connection.close()

    with pytest.raises(OSError, match="version 9"):
        all_keys(path)


DESCRIPTORS = Path("/proc/self/fd")


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="needs Linux's /proc")
def test_no_descriptor_is_left_open(path: Path) -> None:
    add_key(path, a_key())
    before = len(list(DESCRIPTORS.iterdir()))

    keys = StoredKeys(path)
    keys.close()
    damage(path, "random")
    StoredKeys(path).close()

    assert len(list(DESCRIPTORS.iterdir())) == before
