"""Who is let in, and that every change of the keys counts with the next request."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from balancer.clients.admission import Admission, local_admin
from balancer.clients.database import opened
from balancer.clients.keys import AdminOnly, KeysUnusable, key_id
from balancer.clients.store import (
    UsageCounts,
    add_key,
    add_usage,
    change_key,
    revoke_key,
)
from balancer.clients.watch import StoredKeys
from edgeserve.errors import Forbidden, SettingsError, Unauthorized
from tests.balancer.clients.keys import SECRET, Admit, a_key, bearer
from tests.edgeserve.damage import EVERY_WAY, damage


def refused(admission: Admission, secret: str = SECRET) -> str:
    with pytest.raises(Unauthorized) as refusal:
        admission.check(bearer(secret))
    return str(refusal.value)


def test_without_keys_all_is_open_but_to_pages_of_other_sites(admit: Admit) -> None:
    admission = admit()

    assert not admission
    assert admission.check({}).admin
    assert admission.check({"authorization": "Bearer none"}).name == "anonymous"
    with pytest.raises(Forbidden):
        admission.check({"origin": "https://evil.example"})


def test_without_keys_none_may_change_the_fleet(admit: Admit) -> None:
    with pytest.raises(AdminOnly):
        admit().manager({})


def test_the_first_key_closes_a_running_balancer(admit: Admit, path: Path) -> None:
    admission = admit()
    assert not admission

    add_key(path, a_key())

    assert admission.check(bearer()).name == "laptop"
    assert admission
    with pytest.raises(Unauthorized):
        admission.check({})


def test_each_change_counts_with_the_next_request(admit: Admit, path: Path) -> None:
    add_key(path, a_key())
    admission = admit()
    for count in range(20):
        change_key(path, "laptop", {"at_once": count, "models": ("small",)})
        assert admission.check(bearer()).at_once == count

    add_key(path, a_key("another-secret-key", name="phone"))
    assert admission.check(bearer("another-secret-key")).name == "phone"
    revoke_key(path, "laptop", time.time())

    assert "was revoked" in refused(admission)
    assert admission.check(bearer("another-secret-key")).name == "phone"


def test_a_change_without_our_commands_counts_a_moment_later(
    admit: Admit, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balancer.clients.watch.LOOK_SECONDS", 0.0)
    add_key(path, a_key())
    admission = admit()
    assert admission.check(bearer()).id

    with closing(opened(path, 1.0)) as connection:
        connection.execute("UPDATE keys SET revoked = 1.0")
        connection.execute("UPDATE changes SET count = count + 1")

    refused(admission)


def test_two_balancers_on_one_folder_see_the_same(admit: Admit, path: Path) -> None:
    add_key(path, a_key())
    both = admit(), admit()

    revoke_key(path, "laptop", time.time())

    for each in both:
        refused(each)


def test_after_the_last_key_is_revoked_keys_are_still_needed(
    admit: Admit, path: Path
) -> None:
    add_key(path, a_key())
    revoke_key(path, "laptop", time.time())

    admission = admit()

    assert admission
    with pytest.raises(Unauthorized):
        admission.check({})


def test_a_key_ends_in_time(admit: Admit, path: Path) -> None:
    add_key(path, a_key(expires=time.time() + 3600))
    admission = admit()
    assert admission.check(bearer()).id

    change_key(path, "laptop", {"expires": time.time() - 1})

    assert "has expired" in refused(admission)


def test_usage_that_is_written_is_no_change_of_keys(admit: Admit, path: Path) -> None:
    add_key(path, a_key())
    admission = admit()
    before = admission.check(bearer())

    add_usage(path, {("laptop", "small", "2026-11-28"): UsageCounts(1, 2, 3, 4)})

    assert admission.check(bearer()) is before


def test_what_an_admin_may_others_may_not(admit: Admit, path: Path) -> None:
    add_key(path, a_key())
    add_key(path, a_key("the-secret-of-the-boss", name="boss", admin=True))
    admission = admit()

    assert admission.manager(bearer("the-secret-of-the-boss")).name == "boss"
    with pytest.raises(AdminOnly):
        admission.admin(bearer())


def test_anonymous_lets_all_in_but_a_guest_sees_only_guests(
    admit: Admit, path: Path
) -> None:
    add_key(path, a_key(admin=True))
    admission = admit(anonymous=True)

    assert not admission
    assert admission.check(bearer()).name == "laptop"
    guest = admission.check(bearer("no-key-at-all-of-this"))
    assert (guest.name, guest.admin) == ("anonymous", False)
    with pytest.raises(AdminOnly):
        admission.admin({})


def test_a_plain_file_goes_on_to_work_named_by_its_comments(
    admit: Admit, tmp_path: Path
) -> None:
    file = tmp_path / "config" / "api-keys"
    file.write_text(f"# laptop\n{SECRET}\n\nsecret-without-a-name\n")
    admission = admit()

    key = admission.check(bearer())

    assert (key.name, key.admin, key.limited) == ("laptop", True, False)
    unnamed = admission.check(bearer("secret-without-a-name"))
    assert unnamed.name == f"key-{key_id('secret-without-a-name')[:6]}"


def test_a_plain_file_is_read_again_when_it_changes(
    admit: Admit, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{SECRET}\n")
    admission = admit(api_key_file=file)

    file.write_text("another-secret-of-a-client\n")
    refused(admission)
    assert admission.check(bearer("another-secret-of-a-client")).id
    file.unlink()
    refused(admission, "another-secret-of-a-client")
    file.write_text(f"{SECRET}\n")
    assert admission.check(bearer()).id


def test_a_plain_file_that_appears_is_read(admit: Admit, tmp_path: Path) -> None:
    admission = admit()
    assert admission.check({}).name == "anonymous"

    (tmp_path / "config" / "api-keys").write_text(f"{SECRET}\n")

    assert admission.check(bearer()).admin
    with pytest.raises(Unauthorized):
        admission.check({})


@pytest.mark.parametrize("way", [each for each in EVERY_WAY if each != "missing"])
def test_a_plain_file_that_is_damaged_meanwhile_lets_none_in(
    admit: Admit, tmp_path: Path, way: str
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{SECRET}\n")
    admission = admit(api_key_file=file)

    damage(file, way)

    refused(admission)


DAMAGED = [each for each in EVERY_WAY if each != "missing"]


@pytest.mark.parametrize("way", DAMAGED)
def test_a_damaged_store_lets_none_in_and_says_why(
    admit: Admit, path: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    add_key(path, a_key())
    damage(path, way)

    admission = admit()

    assert admission
    for headers in ({}, bearer(), bearer("anything-at-all")):
        with pytest.raises(KeysUnusable):
            admission.check(headers)
    assert "clients.db" in caplog.text
    assert len([each for each in caplog.records if each.levelno >= logging.ERROR]) == 1


def test_a_store_that_was_put_right_counts_again(
    admit: Admit, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balancer.clients.watch.LOOK_SECONDS", 0.0)
    add_key(path, a_key())
    sound = path.read_bytes()
    damage(path, "random")
    admission = admit()
    with pytest.raises(KeysUnusable):
        admission.check(bearer())

    path.write_bytes(sound)

    assert admission.check(bearer()).name == "laptop"


def test_a_store_that_is_deleted_goes_on_to_count(
    admit: Admit, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balancer.clients.watch.LOOK_SECONDS", 0.0)
    add_key(path, a_key())
    admission = admit()

    shutil.rmtree(path.parent)

    assert admission.check(bearer()).name == "laptop"
    with pytest.raises(Unauthorized):
        admission.check({})
    add_key(path, a_key("another-secret-key", name="phone"))
    assert admission.check(bearer("another-secret-key")).name == "phone"
    refused(admission)


def test_on_a_read_only_disk_keys_are_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_key(path, a_key())
    whole: Callable[..., sqlite3.Connection] = sqlite3.connect

    def read_only(name: str, **how: Any) -> sqlite3.Connection:
        if "immutable" not in name:
            fault = sqlite3.OperationalError("unable to open database file")
            fault.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise fault
        return whole(name, **how)

    monkeypatch.setattr("balancer.clients.database.sqlite3.connect", read_only)

    keys = StoredKeys(path)

    assert [key.name for key in keys.keys.values()] == ["laptop"]
    assert keys.problem == ""
    with pytest.raises(OSError, match="readonly"):
        revoke_key(path, "laptop", 1.0)
    keys.close()


def test_commands_of_this_machine_have_a_key_that_ends_with_the_balancer(
    admit: Admit, path: Path, tmp_path: Path
) -> None:
    add_key(path, a_key())
    admission = admit()
    file = tmp_path / "admin-8080.key"
    with local_admin(admission, file, asyncio.Event()):
        first = file.read_text().strip()
        assert file.stat().st_mode & 0o777 == 0o600
        assert admission.manager(bearer(first)).name == "local-admin"
    assert not file.exists()

    with local_admin(admission, file, asyncio.Event()):
        refused(admission, first)


def test_who_takes_over_keeps_the_key_of_this_machine(
    admit: Admit, tmp_path: Path
) -> None:
    old, new = admit(), admit()
    file = tmp_path / "admin-8080.key"
    taken = asyncio.Event()
    with local_admin(old, file, taken):
        secret = file.read_text().strip()
        taken.set()
        with local_admin(new, file, asyncio.Event(), inherits=True):
            assert file.read_text().strip() == secret
            assert new.manager(bearer(secret)) == old.manager(bearer(secret))


def test_where_no_file_can_be_written_the_balancer_serves_all_the_same(
    admit: Admit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    file, taken = tmp_path / "file" / "admin-1.key", asyncio.Event()
    with local_admin(admit(), file, taken, inherits=True):
        assert "cannot write" in caplog.text


def test_a_named_file_that_is_missing_is_refused_at_the_start(
    admit: Admit, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="nothing-there"):
        admit(api_key_file=tmp_path / "nothing-there")
