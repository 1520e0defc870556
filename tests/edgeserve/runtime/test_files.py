""""""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from edgeserve.runtime.files import FolderTaken, alone_in, part_of, workshop
from tests.patience import PATIENCE


def test_a_file_gets_its_name_when_the_block_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"

    with part_of(target) as part:
        part.write_bytes(b"whole")
        assert not target.exists()

    assert target.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_block_keeps_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    target.write_bytes(b"older")

    def write_half() -> None:
        with part_of(target) as part:
            part.write_bytes(b"ha")
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        write_half()

    assert target.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [target]


def test_two_runs_cannot_write_to_one_folder(tmp_path: Path) -> None:
    with (
        alone_in(tmp_path),
        pytest.raises(FolderTaken, match="wait for it"),
        alone_in(tmp_path),
    ):
        pytest.fail("the folder was taken twice")

    with alone_in(tmp_path):
        assert True


HOLDER = """
import sys
from pathlib import Path
from edgeserve.runtime.files import workshop
with workshop(Path(sys.argv[1]), "making", lambda: None) as work:
    (work / "half").touch()
    print("holds", flush=True)
    sys.stdin.read()
"""


def never() -> NoReturn:
    raise AssertionError("nobody else holds it")


def refuse() -> NoReturn:
    raise RuntimeError("somebody else holds it")


def test_the_place_is_empty_at_start_and_gone_at_the_end(tmp_path: Path) -> None:
    left_over = tmp_path / "folder" / ".making" / "old"
    left_over.parent.mkdir(parents=True)
    left_over.touch()

    with (
        suppress(ZeroDivisionError),
        workshop(tmp_path / "folder", "making", never) as work,
    ):
        assert list(work.iterdir()) == []
        (work / "new").touch()
        raise ZeroDivisionError

    assert not work.exists()


def test_the_second_process_may_refuse_or_wait(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        try:
            assert holder.stdout.readline() == b"holds\n"
            with pytest.raises(RuntimeError), workshop(tmp_path, "making", refuse):
                pass
            assert (tmp_path / ".making" / "half").exists()

            with workshop(tmp_path, "making", holder.stdin.close) as work:
                assert list(work.iterdir()) == []
            holder.wait(PATIENCE)
        finally:
            holder.kill()
