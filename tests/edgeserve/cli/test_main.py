import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click
import pytest

from edgeserve.cli.main import COMMANDS, edgeserve
from tests.fakes.terminal import Terminal
from tests.patience import PATIENCE

HEAVY = {
    "aiohttp",
    "asyncio",
    "httptools",
    "httpx2",
    "huggingface_hub",
    "msgspec",
    "psutil",
    "rich",
    "uvloop",
    "zeroconf",
}


def imported_by(*arguments: str) -> set[str]:
    """Return the top-level modules that `edgeserve ARGUMENTS` imports."""
    script = (
        "import sys\nfrom edgeserve.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stderr.split()}


def leaves(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


LEAVES = dict(leaves(edgeserve))


def test_help_imports_nothing_that_takes_long() -> None:
    assert not imported_by("--help") & HEAVY


@pytest.mark.parametrize("command", ["chat", "nodes", "models"])
def test_talking_to_the_endpoint_starts_quickly(command: str) -> None:
    assert not imported_by(command, "--help") & HEAVY


def test_the_help_of_pull_does_not_wait_for_the_hub_s_library() -> None:
    assert not imported_by("pull", "--help") & HEAVY


@pytest.mark.parametrize("path", [*LEAVES, ()], ids=" ".join)
def test_every_help_page_teaches_with_an_example(path: tuple[str, ...]) -> None:
    command = LEAVES[path] if path else edgeserve

    assert f"edgeserve {' '.join(path)}".strip() in (command.epilog or "")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_each_command_says_of_itself(name: str) -> None:
    command = edgeserve.get_command(click.Context(edgeserve), name)

    assert command is not None
    assert (command.help or "").splitlines()[0] == COMMANDS[name][1]


def test_a_command_that_does_not_exist_is_refused(edgeserve: Terminal) -> None:
    seen = edgeserve("serve")

    assert seen.status == 2
    assert "serve" in seen.err


@pytest.mark.parametrize(
    "command", [("nodes",), ("config", "show"), ("pull", "smollm2-135m-instruct")]
)
def test_a_folder_that_may_not_be_read_is_one_sentence(
    command: tuple[str, ...], edgeserve: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path, *_: object, **__: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    # Root, which tests may run as, is denied nothing.
    for look in ("exists", "is_file", "stat"):
        monkeypatch.setattr(Path, look, denied)

    seen = edgeserve(*command)

    assert seen.status == 1
    assert seen.err.startswith("edgeserve: cannot use /")
    assert seen.err.endswith(": Permission denied\n")


def test_python_m_is_the_same_command() -> None:
    argv = [sys.executable, "-m", "edgeserve", "--version"]

    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=PATIENCE, check=True
    )

    assert done.stdout.startswith("edgeserve, version ")


NO_MODEL = "no-model.gguf"
NO_TABLE = "no-table.toml"


@pytest.mark.parametrize(
    "command",
    [
        ("quantize", "inspect", NO_MODEL),
        ("quantize", "plan", NO_MODEL),
        ("quantize", "run", NO_MODEL, "--types", "Q4_0"),
        ("quantize", "compare", NO_MODEL, NO_MODEL),
        ("quantize", "dequantize", NO_MODEL),
        ("node", "tune", NO_MODEL),
        ("node", "plan", "--config", NO_TABLE),
        ("pull", NO_MODEL),
        ("simulate", "--trace", NO_MODEL),
        ("simulate", "--fleet", NO_TABLE),
        ("chat", "--api-key-file", NO_TABLE, "hi"),
    ],
    ids=" ".join,
)
def test_a_file_that_is_not_what_was_asked_for_is_a_mistake_in_the_command(
    command: tuple[str, ...],
    edgeserve: Terminal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (NO_MODEL, NO_TABLE):
        Path(name).write_text("short")

    seen = edgeserve(*command)

    assert seen.status == 2
    assert seen.err.strip().splitlines()[-1].startswith("edgeserve: ")
    assert "Traceback" not in seen.err


def test_on_windows_a_sentence_says_where_it_runs() -> None:
    """What Windows' Python lacks cannot be imported; what is left has to do."""
    code = (
        "import sys, click\n"
        "for lacking in ('fcntl', 'resource', 'pwd', 'uvloop'):\n"
        "    sys.modules[lacking] = None\n"
        "from edgeserve.cli.main import main\n"
        "sys.platform = 'win32'\n"
        "main(['--help'])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert found.returncode == 1
    assert "install EdgeServe in WSL 2" in found.stderr
    assert "Traceback" not in found.stderr
