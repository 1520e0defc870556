from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest

from edgeserve.runtime.files import (
    LONGEST_NAME,
    RepeatedFault,
    in_a_name,
    read_bytes,
    read_json,
    replace_file,
)
from tests.edgeserve.damage import WAYS


class Shape(msgspec.Struct):
    id: str


def test_what_is_written_is_read_back_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.json"

    replace_file(path, b'{"id":"a"}')

    assert read_json(path, Shape) == Shape("a")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["open", "fdopen", "fsync", "replace"])
def test_a_failure_at_any_step_leaves_the_old_content_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"old")
    with monkeypatch.context() as patched:
        owner: Any = Path if step == "replace" else os
        patched.setattr(owner, step, no_space)
        with pytest.raises(OSError, match="No space left") as failed:
            replace_file(path, b"new")

    assert failed.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def no_space(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_content_is_on_the_disk_before_its_name_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, order = tmp_path / "x.json", list[str]()
    rename = Path.replace

    def sync(_: int) -> None:
        order.append("synced")

    def replace(part: Path, target: Path) -> Path:
        order.append("named")
        return rename(part, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)

    replace_file(path, b"new")

    assert order == ["synced", "named", "synced"]


def test_a_secret_is_its_owners_from_the_first_moment(tmp_path: Path) -> None:
    replace_file(tmp_path / "token", b"x", mode=0o600)

    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("a directory", "Is a directory"),
        ("a pipe", "not a regular file"),
        ("a full device", "not a regular file"),
        ("a loop", "symbolic links"),
        ("empty", "damaged: "),
        ("no UTF-8", "damaged: "),
        ("wrong type", "damaged: "),
        ("deep", "damaged: "),
        ("huge", "longer than"),
    ],
)
def test_what_is_wrong_is_an_error_that_names_the_file(
    tmp_path: Path, way: str, why: str
) -> None:
    path = tmp_path / "x.json"
    WAYS[way](path)

    with pytest.raises(OSError, match=why) as failed:
        read_json(path, Shape)

    assert failed.value.filename == str(path)


def test_a_pipe_that_the_shell_has_opened_is_read() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"secret")
    os.close(writing)

    assert read_bytes(Path(f"/dev/fd/{reading}")) == b"secret"


def test_long_names_of_models_make_names_of_files() -> None:
    assert in_a_name("m:Q8_0") == "m.Q8_0"
    assert len(in_a_name("模" * 200).encode()) <= LONGEST_NAME


def test_a_repeated_fault_is_reported_once() -> None:
    said = list[str]()
    fault = RepeatedFault(said.append)

    for _ in range(3):
        fault.report("full")
    fault.ended()
    fault.report("full")

    assert said == ["full", "full"]
