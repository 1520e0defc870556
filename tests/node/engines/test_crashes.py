import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from node.engines.base import EngineSpec
from node.engines.crashes import About, about, find, record
from node.engines.native import Native
from tests.fakes.engines import FakeEngine, a_spec


@pytest.fixture
def spec(tmp_path: Path) -> EngineSpec:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"weights")
    return a_spec(path=file)


@pytest.fixture
def server(tmp_path: Path) -> Native:
    path = tmp_path / "llama-server"
    path.write_text("program")
    return Native(path, "c0ffee-cpu")


def what(server: Native, spec: EngineSpec) -> About:
    found = about(server, spec)
    assert found is not None
    return found


def test_a_crash_is_found_again(
    tmp_path: Path, server: Native, spec: EngineSpec
) -> None:
    crash = record(tmp_path, what(server, spec), "killed by SIGSEGV", on_gpu=False)

    assert find(tmp_path, what(server, spec)) == crash


def rebuilt(server: Native, spec: EngineSpec) -> About:
    server.path.write_text("better program")
    return what(server, spec)


def touched(server: Native, spec: EngineSpec) -> About:
    os.utime(server.path, ns=(1, 1))
    return what(server, spec)


def another_model(server: Native, spec: EngineSpec) -> About:
    spec.path.write_bytes(b"other weights")
    return what(server, spec)


def another_role(server: Native, spec: EngineSpec) -> About:
    return what(server, replace(spec, role="embeddings"))


def another_variant(server: Native, spec: EngineSpec) -> About:
    return what(server, replace(spec, variant="fake:Q8_0"))


@pytest.mark.parametrize(
    "other", [rebuilt, touched, another_model, another_role, another_variant]
)
def test_it_holds_for_no_other_program_model_or_role(
    tmp_path: Path,
    server: Native,
    spec: EngineSpec,
    other: Callable[[Native, EngineSpec], About],
) -> None:
    record(tmp_path, what(server, spec), "killed by SIGSEGV", on_gpu=False)

    assert find(tmp_path, other(server, spec)) is None


@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_restart_of_the_machine_gives_a_gpu_another_chance(
    tmp_path: Path,
    server: Native,
    spec: EngineSpec,
    monkeypatch: pytest.MonkeyPatch,
    on_gpu: bool,
) -> None:
    crash = record(tmp_path, what(server, spec), "killed by SIGABRT", on_gpu=on_gpu)
    assert find(tmp_path, what(server, spec)) == crash

    monkeypatch.setattr(psutil, "boot_time", lambda: crash.made + 1)

    assert (find(tmp_path, what(server, spec)) is None) == on_gpu


def test_the_sentence_says_what_serves_and_what_crashed_how(
    tmp_path: Path, server: Native, spec: EngineSpec
) -> None:
    why = "killed by SIGSEGV: warming up the model"
    crash = record(tmp_path, what(server, spec), why, on_gpu=False)

    assert "served by the bundled engine" in crash.sentence
    assert "c0ffee-cpu" in crash.sentence
    assert "(killed by SIGSEGV)" in crash.sentence
    told = msgspec.structs.replace(crash, why="ended with status 1: unknown model")
    assert "unknown model" in told.sentence


def test_what_has_no_executable_crashes_unnamed(spec: EngineSpec) -> None:
    assert about(FakeEngine(), spec) is None


def test_a_program_that_is_gone_is_about_nothing(
    server: Native, spec: EngineSpec
) -> None:
    server.path.unlink()

    assert about(server, spec) is None


def test_a_broken_record_is_none(
    tmp_path: Path, server: Native, spec: EngineSpec
) -> None:
    record(tmp_path, what(server, spec), "killed", on_gpu=False)
    [file] = (tmp_path / "crashes").iterdir()
    file.write_text('{"half": ')

    assert find(tmp_path, what(server, spec)) is None


def test_a_disk_that_takes_nothing_is_a_warning(
    tmp_path: Path,
    server: Native,
    spec: EngineSpec,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "crashes").write_text("in the way")

    record(tmp_path, what(server, spec), "killed", on_gpu=False)

    assert "cannot write" in caplog.text
    assert find(tmp_path, what(server, spec)) is None
