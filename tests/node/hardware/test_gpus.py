from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest

from edgeserve.reports.hardware import Gpu
from node.hardware import gpus as module
from node.hardware.gpus import QUESTION, Gpus, gpus, parse_nvidia, program_output
from node.hardware.sample import GPUS_EVERY, Sampler
from tests.patience import PATIENCE

ROW = "NVIDIA H100, 81559, 81000\n"
(SEEN,) = parse_nvidia(ROW)


@pytest.fixture
def smi(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `nvidia-smi` answers next; empty where it fails."""
    answers = list[str]()
    monkeypatch.setattr(
        module, "program_output", lambda *_: answers.pop(0) if answers else ""
    )
    return answers


def test_a_gpu_that_appears_later_is_seen(smi: list[str]) -> None:
    smi.extend(["", ROW])
    sampler = Sampler()
    seen = [sampler().gpus for _ in range(GPUS_EVERY + 1)]

    assert (seen[0], seen[-1]) == ((), (SEEN,))


def test_one_look_that_fails_is_no_loss(smi: list[str], tmp_path: Path) -> None:
    smi.extend([ROW, "", ROW, "", "", ROW])
    look = Gpus(tmp_path)
    seen = [len(look()) for _ in range(6)]

    assert seen == [1, 1, 1, 1, 0, 1]


def test_a_new_gpu_is_logged(
    smi: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    smi.extend(["", ROW])
    look = Gpus(tmp_path)
    with caplog.at_level(logging.INFO):
        look()
        look()

    assert "there are GPUs now: NVIDIA H100" in caplog.text


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'Driver/library version mismatch' >&2; exit 18", "version mismatch"),
        ("exit 9", "status 9"),
        ("sleep 60", "more than"),
    ],
)
def test_a_tool_that_fails_is_logged_once_in_its_own_words(
    script: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)

    assert [program_output((str(tool),), 0.5) for _ in range(2)] == ["", ""]
    assert caplog.text.count(said) == 1


def test_a_tool_that_cannot_be_ended_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a driver hangs, `nvidia-smi` does, and not even SIGKILL ends it."""
    count = tmp_path / "count"
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho >> {count}\nexec sleep 600\n")
    tool.chmod(0o755)
    kill = os.killpg
    monkeypatch.setattr(os, "killpg", lambda *_: None)
    monkeypatch.setattr(module, "KILL_SECONDS", 0.01)

    assert [program_output((str(tool),), 3.0) for _ in range(3)] == [""] * 3
    assert count.read_text() == "\n"

    hung = module._hung.pop(str(tool))
    kill(hung.pid, signal.SIGKILL)
    hung.wait(PATIENCE)


def test_a_tool_that_is_not_there_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert program_output(("/nowhere/nvidia-smi", *QUESTION[1:]), 1.0) == ""
    assert caplog.text == ""


def test_what_is_not_utf_8_does_no_harm(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_bytes(b"#!/bin/sh\nprintf 'GPU \\377, 1, 1\\n'\n")
    tool.chmod(0o755)

    assert [
        each.memory_total for each in parse_nvidia(program_output((str(tool),), 5.0))
    ] == [2**20]


@pytest.mark.parametrize("used", [b"", b"many", b"\xff", None])
def test_a_card_whose_driver_says_nonsense_is_left_out(
    used: bytes | None, smi: list[str], tmp_path: Path
) -> None:
    assert smi == []
    for name, said in (("card0", used), ("card11", b"5")):
        device = tmp_path / "sys/class/drm" / name / "device"
        device.mkdir(parents=True)
        (device / "mem_info_vram_total").write_bytes(b"10\n")
        if said is not None:
            (device / "mem_info_vram_used").write_bytes(said)

    assert gpus(tmp_path) == (Gpu(name="AMD GPU", memory_total=10, memory_free=5),)
