import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from edgeserve.models.facts import read
from tests.fakes.gguf import Shape, a_model
from tests.patience import PATIENCE
from tests.quantize.needs import library

pytestmark = library

# IQ3_S takes some seconds of this shape; Q8_0 a moment.
SLOW = Shape(embedding=512, feed_forward=1536, layers=4, vocabulary=1024)


def run(base: Path, types: str) -> list[str]:
    return [
        *(sys.executable, "-m", "edgeserve", "quantize", "run", str(base)),
        *("--types", types, "--threads", "1"),
    ]


def started(base: Path, types: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        run(base, types), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def half_way(base: Path) -> Callable[[], bool]:
    """Say when the first type is done and the second is being written."""
    part = base.parent / "m.IQ3_S.gguf.part"
    return lambda: (
        (base.parent / "m.Q8_0.gguf").exists()
        and (part.exists() and part.stat().st_size > 0)
    )


def test_a_killed_run_leaves_no_half_file_and_no_process_and_is_resumed(
    tmp_path: Path,
) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SLOW)
    command = started(base, "Q8_0,IQ3_S")
    wait_for(half_way(base))
    children = psutil.Process(command.pid).children(recursive=True)

    command.kill()
    command.wait()

    assert children
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert alive == []
    assert not (tmp_path / "m.IQ3_S.gguf").exists()
    done = (tmp_path / "m.Q8_0.gguf").stat()
    subprocess.run(run(base, "Q8_0,IQ3_S"), check=True, capture_output=True)
    assert (tmp_path / "m.Q8_0.gguf").stat().st_ino == done.st_ino
    assert read(tmp_path / "m.IQ3_S.gguf").file_type == "IQ3_S"
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_cleans_up_and_keeps_what_is_finished(
    tmp_path: Path, number: signal.Signals
) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SLOW)
    command = started(base, "Q8_0,IQ3_S")
    wait_for(half_way(base))
    children = psutil.Process(command.pid).children(recursive=True)

    command.send_signal(number)

    assert command.wait(timeout=PATIENCE) != 0
    assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "m.F16.gguf",
        "m.Q8_0.gguf",
        "m.variants.json",
    ]


def test_a_file_that_may_not_grow_is_a_sentence_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SLOW)
    blocks = base.stat().st_size // 4 // 512

    done = subprocess.run(
        ["sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh", *run(base, "Q8_0")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "Q8_0" in done.stderr
    assert "needed" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [base]


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SLOW)
    disk = tmp_path / "disk"
    disk.mkdir()
    size = base.stat().st_size * 6 // 10
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("no file system may be mounted here")
    try:
        # Enough room when asked, and none any more when it is needed.
        filler = disk / "filler"
        command = subprocess.Popen(
            [*run(base, "Q8_0"), "--out", str(disk)], stderr=subprocess.PIPE, text=True
        )
        wait_for(lambda: (disk / "m.Q8_0.gguf.part").exists())
        fill(filler)
        _, said = command.communicate(timeout=PATIENCE)

        assert command.returncode == 1
        assert "free in" in said
        assert list(disk.iterdir()) == [filler]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
