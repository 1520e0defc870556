import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from edgeserve.errors import EngineUnavailable
from node.engine_build.backends import TARGETS, WITHOUT_AMX, Backend, Toolchain
from node.engine_build.build import BuildOptions, CannotBuild, build
from node.engine_build.smoke import NotWorking
from node.engine_build.source import NoSource
from node.engines.builds import builds, engines_dir, in_use
from node.engines.native import find, native
from tests.fakes.cmake import an_sdist, install
from tests.patience import PATIENCE

FOUND = Toolchain(
    tools=frozenset(("c++", "cmake", "nvcc", "glslc")),
    system="Linux",
    installer="apt-get",
    vulkan=True,
)


@pytest.fixture(autouse=True)
def stub_cmake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `cmake` be the stub; STUB_FAULT says how it fails."""
    stub = install(tmp_path / "stub")
    monkeypatch.setenv("PATH", f"{stub}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def order(tmp_path: Path) -> BuildOptions:
    """Build from a small sdist into a state folder of its own."""
    sdist = an_sdist(tmp_path / "sdist.tar.gz")
    return BuildOptions(
        state_dir=tmp_path / "state", backend="cpu", jobs=2, source=sdist
    )


def silently(_step: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def left_over(order: BuildOptions) -> list[str]:
    """Name what is in the folder of builds, but for the lock."""
    folder = engines_dir(order.state_dir)
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_build_is_tried_kept_with_its_manifest_and_used(order: BuildOptions) -> None:
    told = list[tuple[str, int, int]]()

    made = build(order, FOUND, lambda *step: told.append(step))

    assert made.name == "0c1e57098-cpu"
    assert made.commit == "0c1e57098"
    assert made.version == "9.9 (build 0, commit 0c1e57098)"
    assert "-DLLAMA_BUILD_COMMIT=0c1e57098" in made.flags
    assert builds(order.state_dir) == [made]
    assert in_use(order.state_dir) == made.name
    folder = engines_dir(order.state_dir) / made.name
    assert {path.name for path in folder.iterdir()} == {
        *TARGETS, "build.json", "build.log",
    }  # fmt: skip
    assert "Building CXX object b.o" in (folder / "build.log").read_text()
    assert [done for step, done, _ in told if step == "compiling"] == [7, 50, 100, 100]
    assert left_over(order) == ["0c1e57098-cpu", "current"]


def test_a_node_finds_and_runs_the_build(order: BuildOptions) -> None:
    made = build(order, FOUND, silently)

    path = find(None, order.state_dir)

    assert path is not None
    assert native(path).build == made.identity


def test_a_second_build_stands_beside_the_first(order: BuildOptions) -> None:
    first = build(order, FOUND, silently)
    second = build(order, FOUND, silently)

    assert (first.name, second.name) == ("0c1e57098-cpu", "0c1e57098-cpu-2")
    assert [each.name for each in builds(order.state_dir)] == [first.name, second.name]
    assert in_use(order.state_dir) == second.name


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("configure", CannotBuild, "no such thing as a compiler"),
        ("compile", CannotBuild, r"nonsense\.h.*build\.log"),
        ("version", NotWorking, "--version ends with 3"),
        ("crash", NotWorking, "fails with Q4_0 weights"),
        ("silent", NotWorking, "answers Q4_0 weights with"),
    ],
)
def test_a_build_that_fails_leaves_the_one_in_use_and_a_log(
    order: BuildOptions,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    error: type[EngineUnavailable],
    said: str,
) -> None:
    before = build(order, FOUND, silently)
    monkeypatch.setenv("STUB_FAULT", fault)

    with pytest.raises(error, match=said):
        build(order, FOUND, silently)

    assert in_use(order.state_dir) == before.name
    assert left_over(order) == ["0c1e57098-cpu", "build.log", "current"]


AMX = replace(FOUND, amx=True, compiler="Debian clang version 16.0.6")


def test_amx_is_built_in_where_it_works(order: BuildOptions) -> None:
    made = build(order, AMX, silently)

    assert not any("AMX" in flag for flag in made.flags)


def test_a_build_that_breaks_down_with_amx_is_made_without(
    order: BuildOptions,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("STUB_FAULT", "amx")

    made = build(order, AMX, silently)

    assert f"-DCMAKE_CXX_FLAGS={WITHOUT_AMX}" in made.flags
    assert "building without AMX" in caplog.text
    assert in_use(order.state_dir) == made.name


@pytest.mark.parametrize("backend", ["cuda", "vulkan"])
def test_a_gpu_build_must_find_a_gpu(
    order: BuildOptions, monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    ordered = replace(order, backend=backend)

    with pytest.raises(NotWorking, match=f"finds no {backend} device"):
        build(ordered, FOUND, silently)

    device = "CUDA0: NVIDIA H100 (81089 MiB, 80500 MiB free)"
    monkeypatch.setenv("STUB_DEVICE", device)
    assert build(ordered, FOUND, silently).devices == (device,)


def test_what_is_missing_is_named_before_anything_is_begun(order: BuildOptions) -> None:
    bare = Toolchain(tools=frozenset(), system="Linux", installer="apt-get")

    with pytest.raises(CannotBuild, match="apt-get install build-essential cmake"):
        build(order, bare, silently)

    assert not order.state_dir.exists()


def test_a_folder_of_llama_cpp_is_built_where_it_is(
    order: BuildOptions, tmp_path: Path
) -> None:
    tree = tmp_path / "llama.cpp"
    (tree / "ggml").mkdir(parents=True)
    (tree / "ggml" / "CMakeLists.txt").touch()

    made = build(replace(order, source=tree), FOUND, silently)

    assert made.name == "unknown-cpu"
    assert made.source == str(tree)


@pytest.mark.parametrize("kind", ["cut", "text", "foreign", "empty folder", "absent"])
def test_a_source_that_is_none_is_a_sentence(
    order: BuildOptions, tmp_path: Path, kind: str
) -> None:
    source = tmp_path / "source"
    if kind == "cut":
        whole = an_sdist(tmp_path / "whole.tar.gz").read_bytes()
        source.write_bytes(whole[: len(whole) // 2])
    elif kind == "text":
        source.write_text("# llama.cpp")
    elif kind == "foreign":
        an_sdist(source, vendored=False)
    elif kind == "empty folder":
        source.mkdir()

    with pytest.raises(NoSource, match=str(source)) as raised:
        build(replace(order, source=source), FOUND, silently)

    assert raised.value.exit_status == 2
    assert "\n" not in str(raised.value)
    assert left_over(order) == []


COMMAND = """
import sys
from pathlib import Path
from node.engine_build.build import BuildOptions, build
from node.engine_build.backends import Toolchain
from edgeserve.runtime.lifecycle import interruptible
found = Toolchain(tools=frozenset(("c++", "cmake")), system="Linux")
with interruptible():
    state, sdist = map(Path, sys.argv[1:])
    build(BuildOptions(state_dir=state, backend="cpu", source=sdist),
          found, lambda *_step: None)
"""


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_build_that_is_stopped_leaves_no_compiler_running(
    order: BuildOptions, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("STUB_FAULT", "hang")
    assert order.source is not None
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(order.state_dir), str(order.source)],
        stderr=subprocess.DEVNULL,
    )
    log = engines_dir(order.state_dir) / "build.log"
    parent = psutil.Process(command.pid)
    wait_for(lambda: log.exists() and b"hanging" in log.read_bytes())
    with pytest.raises(CannotBuild, match="another build is running"):
        build(order, FOUND, silently)
    children = parent.children(recursive=True)

    command.send_signal(number)

    assert command.wait(timeout=PATIENCE) != 0
    assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []
    monkeypatch.delenv("STUB_FAULT")
    assert build(order, FOUND, silently).name == "0c1e57098-cpu"
