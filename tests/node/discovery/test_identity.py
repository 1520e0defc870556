from __future__ import annotations

import errno
from pathlib import Path
from typing import NoReturn

import pytest

from edgeserve.errors import SettingsError
from node.discovery.identity import Machine, identified, same, this_machine

PI = Machine(serials=("10000000abcdef01",), adapters=("dc:a6:32:00:00:01",))


def the_id(folder: Path, machine: Machine = PI) -> str:
    with identified(folder, machine) as identity:
        return identity.id


def test_an_id_survives_a_restart(tmp_path: Path) -> None:
    assert the_id(tmp_path) == the_id(tmp_path)


def test_two_folders_have_two_ids(tmp_path: Path) -> None:
    assert the_id(tmp_path / "a") != the_id(tmp_path / "b")


def test_a_folder_copied_to_another_machine_gets_a_new_id(tmp_path: Path) -> None:
    other = Machine(serials=("10000000abcdef02",), machine_id=PI.machine_id)

    assert the_id(tmp_path, PI) != the_id(tmp_path, other)


def test_a_new_id_is_kept_from_then_on(tmp_path: Path) -> None:
    the_id(tmp_path)
    with identified(tmp_path, PI) as identity:
        identity.renew()

    assert the_id(tmp_path) == identity.id


def test_a_damaged_file_costs_the_id_and_not_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = the_id(tmp_path)
    (tmp_path / "node.json").write_bytes(b'{"id": "cut o')

    assert the_id(tmp_path) != first
    assert "node.json" in caplog.text
    assert "gets a new id" in caplog.text


def test_what_has_not_changed_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = the_id(tmp_path)
    monkeypatch.setattr("node.discovery.identity.replace_file", no_space)

    assert the_id(tmp_path) == first


def test_an_id_that_cannot_be_kept_lasts_as_long_as_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("node.discovery.identity.replace_file", no_space)

    with identified(tmp_path, PI) as identity:
        first = identity.id
        identity.renew()

    assert identity.id != first
    assert "No space left on device" in caplog.text


def no_space(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_two_nodes_on_one_folder_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with (
        identified(tmp_path, PI),
        pytest.raises(SettingsError, match=r"another node .* --state-dir"),
    ):
        the_id(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SettingsError, match=r"cannot keep state .* --state-dir"):
        the_id(tmp_path / "file" / "state")


def test_what_root_saw_is_remembered_for_others(tmp_path: Path) -> None:
    seen_by_user = Machine(adapters=PI.adapters)
    first = the_id(tmp_path, PI)
    the_id(tmp_path, seen_by_user)

    assert the_id(tmp_path, Machine(serials=PI.serials)) == first


@pytest.mark.parametrize(
    "now",
    [
        Machine(serials=PI.serials),
        Machine(serials=PI.serials, adapters=("aa:aa:aa:aa:aa:aa",)),
        Machine(adapters=(*PI.adapters, "00:e0:4c:00:00:09")),
        Machine(serials=PI.serials, machine_id="reinstalled"),
        Machine(),
    ],
)
def test_a_machine_with_another_adapter_or_system_is_the_same(now: Machine) -> None:
    assert same(PI, now)


@pytest.mark.parametrize(
    "now",
    [
        Machine(serials=("other",), adapters=PI.adapters),
        Machine(adapters=("dc:a6:32:00:00:02",)),
        Machine(machine_id="another"),
    ],
)
def test_a_machine_with_other_evidence_is_another(now: Machine) -> None:
    assert not same(PI, now)


def test_the_evidence_is_read_from_the_file_system(tmp_path: Path) -> None:
    write(tmp_path, "sys/firmware/devicetree/base/serial-number", "10000000abc\0")
    write(tmp_path, "sys/class/dmi/id/product_uuid", "Default string\n")
    write(tmp_path, "etc/machine-id", "0123\n")
    an_adapter(tmp_path, "eth0", "dc:a6:32:00:00:01", "devices/platform/nic")
    an_adapter(tmp_path, "usb0", "00:e0:4c:00:00:01", "devices/usb1/1-1")
    an_adapter(tmp_path, "wlan0", "02:e0:4c:00:00:01", "devices/platform/wifi")
    write(tmp_path, "sys/class/net/docker0/address", "00:42:00:00:00:01")

    assert this_machine(tmp_path) == Machine(
        serials=("10000000abc",), adapters=("dc:a6:32:00:00:01",), machine_id="0123"
    )


def write(root: Path, place: str, text: str) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text(text)


def an_adapter(root: Path, name: str, address: str, device: str) -> None:
    write(root, f"sys/class/net/{name}/address", f"{address}\n")
    (root / device).mkdir(parents=True)
    (root / f"sys/class/net/{name}/device").symlink_to(root / device)
