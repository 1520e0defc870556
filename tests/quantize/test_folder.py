import sys
from pathlib import Path

import pytest

from edgeserve.runtime.files import FolderTaken, alone_in, part_of


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


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked there")
def test_two_runs_cannot_write_to_one_folder(tmp_path: Path) -> None:
    with (
        alone_in(tmp_path),
        pytest.raises(FolderTaken, match="wait for it"),
        alone_in(tmp_path),
    ):
        pytest.fail("the folder was taken twice")

    with alone_in(tmp_path):
        assert True
