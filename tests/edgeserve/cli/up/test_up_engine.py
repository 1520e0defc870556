"""`edgeserve up` whole: real processes, a real engine, the lines as printed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.engine

EDGESERVE = [sys.executable, "-m", "edgeserve"]
SECONDS = 120


@contextmanager
def up(folder: Path, model: Path) -> Generator[tuple[subprocess.Popen[str], list[str]]]:
    """Run it until the block ends, or it has; yields the process and its words."""
    environ = {**os.environ, "EDGESERVE_STATE_DIR": str(folder)}
    process = subprocess.Popen(
        [*EDGESERVE, "up", "--port", "0", "--model", str(model)],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    try:
        words: list[str] = []
        while not words or not words[-1].startswith("Ctrl-C"):
            words.append(process.stdout.readline())
            assert words[-1], "it ended before it served"
        yield process, words
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def line(words: list[str], start: str) -> str:
    (found,) = (word.strip() for word in words if word.strip().startswith(start))
    return found


def output(*argv: str) -> str:
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0
    return done.stdout


def running(process: psutil.Process) -> bool:
    """Whether it still does anything; in a container it may stay a zombie."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_first_minute(smollm2: Path, tmp_path: Path) -> None:
    with up(tmp_path, smollm2) as (process, words):
        family = psutil.Process(process.pid).children(recursive=True)
        url = words[0].split()[-1]

        by_curl = output("sh", "-c", line(words, "curl"))
        by_python = output(sys.executable, "-c", line(words, "from openai"))
        by_chat = output(*EDGESERVE, "chat", "--url", url, "What is 2 + 2?")
        models = output(*EDGESERVE, "models", "--url", url)
        process.send_signal(signal.SIGTERM)

        assert process.wait(SECONDS) == 0
    assert '"role":"assistant"' in by_curl
    assert by_python.strip()
    assert by_chat.strip()
    assert models.splitlines()[1].split()[:3] == [
        *("smollm2-135m-instruct", "loaded", "Q4_1"),
    ]
    assert len(family) == 3
    assert not any(running(each) for each in family)


def test_nothing_is_left_when_it_is_killed_outright(
    smollm2: Path, tmp_path: Path
) -> None:
    with up(tmp_path, smollm2) as (process, _):
        family = psutil.Process(process.pid).children(recursive=True)

        process.kill()

        while any(running(each) for each in family):
            time.sleep(0.05)


def test_a_model_cut_short_is_one_sentence(smollm2: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.gguf"
    short.write_bytes(smollm2.read_bytes()[:10_000_000])

    done = subprocess.run(
        [*EDGESERVE, "up", "--port", "0", "--model", str(short)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )

    assert done.returncode == 1
    assert done.stderr.count(f"{short}: is cut short") == 1
    assert "Traceback" not in done.stderr
