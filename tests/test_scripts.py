"""The shell scripts, on machines that lack something."""

import subprocess
from pathlib import Path

import pytest

from tests.patience import PATIENCE

ROOT = Path(__file__).parents[1]
TOOLS = {"cat", "cksum", "dirname", "mktemp", "rm", "sed", "sh", "tail", "tee", "uname"}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A PATH of its own: plain tools, an ordinary user, no apt-get."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = next(
            path for path in (Path("/usr/bin"), Path("/bin")) if (path / tool).exists()
        )
        (folder / tool).symlink_to(found / tool)
    put(folder, "id", "echo 1000")
    return folder


def put(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)  # it may link to this machine's own tool
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run(machine: Path, *argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    script, *arguments = argv
    return subprocess.run(
        [str(ROOT / "scripts" / script), *arguments],
        env={"PATH": str(machine), **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_a_python_that_is_too_old_is_passed_over(machine: Path) -> None:
    put(machine, "python3", "exit 1")
    put(machine, "python3.12", "exit 0")

    assert run(machine, "find-python").stdout == "python3.12\n"


def test_without_any_python_it_says_which_is_needed(machine: Path) -> None:
    done = run(machine, "find-python")

    assert done.returncode == 1
    assert "Python 3.11 or later" in done.stderr


def test_on_a_32_bit_system_it_says_what_to_install(machine: Path) -> None:
    put(machine, "python3", "exit 0")
    put(machine, "uname", "echo armv7l")

    done = run(machine, "find-python")

    assert done.returncode == 1
    assert "Raspberry Pi OS (64-bit)" in done.stderr


def test_what_is_missing_is_named_without_root(machine: Path) -> None:
    put(machine, "python3", "exit 1")

    done = run(machine, "system-packages", "python3", "dev")

    assert done.returncode == 1
    wanted = "apt-get install python3-venv libgomp1 libstdc++6 curl"
    assert wanted in done.stderr


def test_sudo_is_named_only_where_it_is(machine: Path) -> None:
    put(machine, "python3", "exit 1")

    without = run(machine, "system-packages", "python3").stderr
    put(machine, "sudo", "")
    with_it = run(machine, "system-packages", "python3").stderr

    assert "run this as root and" in without
    assert "sudo" not in without
    assert "    sudo apt-get install python3-venv" in with_it


def test_root_installs_what_is_missing(machine: Path, tmp_path: Path) -> None:
    put(machine, "python3", "exit 1")
    put(machine, "id", "echo 0")
    put(machine, "curl", "")
    put(machine, "apt-get", f'echo "$*" >>{tmp_path}/asked')

    done = run(machine, "system-packages", "python3", "dev")

    assert done.returncode == 0
    installing = (tmp_path / "asked").read_text().splitlines()[-1]
    assert installing.endswith("python3-venv libgomp1 libstdc++6 iproute2")


@pytest.mark.parametrize(
    ("what", "wanted"), [("quantize", "g++ curl"), ("native", "g++ cmake")]
)
def test_only_what_compiles_asks_for_a_compiler(
    machine: Path, what: str, wanted: str
) -> None:
    put(machine, "python3", "exit 0")

    done = run(machine, "system-packages", "python3", what)

    assert f"apt-get install {wanted}\n" in done.stderr


@pytest.mark.parametrize("what", ["run", "dev", "quantize", "native"])
def test_a_machine_that_has_everything_is_left_alone(machine: Path, what: str) -> None:
    put(machine, "python3", "exit 0")
    for tool in ("curl", "c++", "cmake"):
        put(machine, tool, "")

    done = run(machine, "system-packages", "python3", what)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("had", "wanted"),
    [("run", "run"), ("dev", "dev"), ("dev", "run"), ("quantize", "dev")],
)
def test_installing_twice_does_nothing_the_second_time(
    had: str, wanted: str, machine: Path, tmp_path: Path
) -> None:
    project = (ROOT / "pyproject.toml").read_bytes()
    sum_ = subprocess.run(["cksum"], input=project, capture_output=True).stdout
    (tmp_path / ".edgeserve").write_text(f"{had} {ROOT} {sum_.decode()}")

    done = run(machine, "install", wanted, VENV=str(tmp_path))

    assert (done.returncode, done.stderr) == (0, "")


PIP = """
[ "$1" = -m ] || exit 1  # asked whether the library is there
echo "$CMAKE_ARGS" >{told}
echo "  [ 9/83] c++ a.cpp"
echo "  [10/83] c++ b.cpp"
echo "  b.cpp:1:1: error: something"
exit {status}
"""


@pytest.mark.parametrize("status", [0, 1])
def test_compiling_shows_its_progress_and_on_failure_why(
    machine: Path, tmp_path: Path, status: int
) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    told = tmp_path / "told"
    put(tmp_path / "venv" / "bin", "python", PIP.format(told=told, status=status))

    done = run(machine, "compile-library", f"{tmp_path}/venv", CMAKE_ARGS="-DMINE=ON")

    said = done.stderr.splitlines()
    assert done.returncode == status
    assert "compiling [10/83]" in said
    assert "compiling [ 9/83]" not in said
    assert ("  b.cpp:1:1: error: something" in said) == bool(status)
    assert "-DMINE=ON" in told.read_text()


INSTALLING = """
case "$*" in
*--version*) exit 1 ;;
*venv*) exit 0 ;;
esac
echo "Collecting click>=8.2 (from edgeserve==0.1.0)"
echo "  Downloading click-8.5.1-py3-none-any.whl (110 kB)"
echo "Installing collected packages: click, edgeserve"
echo "ERROR: the index is down" >&2
exit {status}
"""


@pytest.mark.parametrize("status", [0, 1])
def test_installing_shows_its_step_and_on_failure_why(
    machine: Path, tmp_path: Path, status: int
) -> None:
    script = INSTALLING.format(status=status)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    put(tmp_path / "venv" / "bin", "python", script)
    put(machine, "python3", "exit 0")
    for tool in ("curl", "ip"):
        put(machine, tool, "")

    done = run(machine, "install", "run", VENV=str(tmp_path / "venv"))

    first, *said = done.stderr.splitlines()
    assert first.startswith(f"Installing edgeserve into {tmp_path}/venv")
    assert said[:3] == [
        "  making the virtual environment",
        "  fetching click",
        "  unpacking and installing them",
    ]
    assert ("ERROR: the index is down" in said) == bool(status)
    assert done.returncode == status
    assert (tmp_path / "venv" / ".edgeserve").exists() == (status == 0)


def test_make_join_starts_the_node_with_the_options_of_join() -> None:
    shown = subprocess.run(
        ["make", "-n", "join", "ARGS=--yes https://nuc:8080 --port 8091"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE,
    ).stdout  # fmt: skip

    assert "edgeserve join --yes https://nuc:8080 --port 8091\n" in shown
    assert "edgeserve node start --balancer https://nuc:8080 --port 8091\n" in shown
