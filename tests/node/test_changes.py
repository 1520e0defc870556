from pathlib import Path

import pytest

from node.engines.changes import WAKE_ONE_READER, change


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Hold the lines that are to be changed, as often as they are there."""
    for edit in WAKE_ONE_READER.edits:
        file = tmp_path / edit.file
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as lines:
            lines.write(edit.known * edit.times + "//\n")
    return tmp_path


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*.*")}


def test_known_lines_are_changed(source: Path) -> None:
    assert change(source) == ("wake-one-reader",)

    found = texts(source)
    assert "reader_of;" in found["server-queue.h"]
    assert "mine.wait_for(" in found["server-queue.cpp"]
    assert found["server-queue.cpp"].count("reader.second->notify_all();") == 2


def test_a_source_is_changed_once(source: Path) -> None:
    change(source)
    before = texts(source)

    assert change(source) == ()
    assert texts(source) == before


@pytest.mark.parametrize("file", ["server-queue.h", "server-queue.cpp"])
def test_where_one_line_is_another_all_stay(
    source: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = source / "tools" / "server" / file
    path.write_text(path.read_text().replace("condition_results", "other"))
    before = texts(source)

    assert change(source) == ()
    assert texts(source) == before
    assert f"{file} is another one than we know" in caplog.text


def test_a_source_without_the_file_is_left_alone(tmp_path: Path) -> None:
    assert change(tmp_path) == ()
    assert list(tmp_path.iterdir()) == []
