"""Whatever the disk looks like: commands say it in a sentence, and servers serve."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.edgeserve.damage import (
    BALANCER,
    EVERY,
    EVERY_WAY,
    FOLDERS,
    HELPERS,
    KEPT_BY,
    NODE,
    OPENING,
    OTHERWISE,
    READ,
    Home,
    a_home,
    calls,
    damage,
    modules,
)
from tests.fakes.terminal import Seen, Terminal, terminal

Serve = Callable[[asyncio.Event], Awaitable[None]]


def test_every_file_that_is_kept_is_among_those_that_are_damaged() -> None:
    keeping = {
        f"{module}:{where}"
        for module, tree in modules()
        for where, name, method in calls(tree)
        if name in HELPERS and not method
    }

    assert keeping == set(KEPT_BY)
    assert {each for kept in KEPT_BY.values() for each in kept.split()} <= set(READ)


def test_nothing_else_opens_files_of_ours() -> None:
    opening = {
        module
        for module, tree in modules()
        for _, name, method in calls(tree)
        if name in OPENING and (method or name == "open")
    }

    assert opening - OPENERS_OF_OTHER_THINGS == set(OTHERWISE)


OPENERS_OF_OTHER_THINGS = {"balancer.api.inference", "edgeserve.help"}
"""They open records and write help, not files."""


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return a_home(tmp_path_factory.mktemp("whole") / "home")


@pytest.fixture
def home(whole: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A copy whose servers leave as soon as they have begun."""
    mine = Home(tmp_path / "home")
    shutil.copytree(whole.root, mine.root, symlinks=True)
    monkeypatch.setenv("EDGESERVE_CONFIG_DIR", str(mine.config))
    monkeypatch.setenv("EDGESERVE_STATE_DIR", str(mine.state))
    monkeypatch.setenv("PATH", f"{mine.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("edgeserve.runtime.lifecycle.run", briefly)
    monkeypatch.setattr("edgeserve.cli.up.commands.serve", nothing)
    return mine


def briefly(serve: Serve, *, log_level: str) -> int:
    async def served() -> None:
        stop = asyncio.Event()
        stop.set()
        await serve(stop)

    del log_level
    asyncio.run(served())
    return 0


async def nothing(*_: object) -> None:
    pass


@pytest.fixture
def run(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[tuple[str, ...]], Seen]:
    edgeserve: Terminal = terminal(capsys, monkeypatch)
    return lambda command: checked(edgeserve(*home.words(*command)), command)


def checked(seen: Seen, command: tuple[str, ...]) -> Seen:
    """A command ends well, or says in a sentence why not."""
    said = seen.out + seen.err
    assert "Traceback" not in said, (command, said)
    assert "Exception ignored" not in said, (command, said)
    assert seen.status in (0, 1, 2), (command, said)
    lines = [line for line in said.splitlines() if line.startswith(SENTENCES)]
    assert seen.status == 0 or lines, (command, said)
    return seen


SENTENCES = ("edgeserve: ", "cannot: ", "Error: ", "Usage: ")


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_in_a_sound_home_every_command_ends_well(
    run: Callable[[tuple[str, ...]], Seen], command: tuple[str, ...]
) -> None:
    seen = run(command)

    assert (seen.status > 0) == (command in REFUSED), seen


REFUSED = {
    ("token", "new"),
    ("balancer", "start", "--port", "18080", "--takeover"),
    ("models", "--url", "http://127.0.0.1:18080"),
}

KEEPING_OUT = ("token", "api-keys", "nodes.json")
"""Files that keep others out: where one is damaged, the balancer does not start."""


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("file", READ)
def test_no_state_of_a_file_is_a_traceback(
    home: Home,
    run: Callable[[tuple[str, ...]], Seen],
    caplog: pytest.LogCaptureFixture,
    file: str,
    way: str,
) -> None:
    (path,) = home.root.glob(file)
    for command in READ[file]:
        damage(path, way)
        seen = run(command)
        if file.endswith((".json", ".db", ".key")) and command in SERVING:
            assert seen.status == 0 or path.name in KEEPING_OUT, seen
        if path.name in SAID and way not in {"missing", "dangling"}:
            assert path.name in seen.out + seen.err + caplog.text
        if not os.path.lexists(path):
            path.touch()


SERVING = (NODE[0], *BALANCER)
SAID = (
    *("node.json", "models.json", "loads.json", "learned.json", "limits.json"),
    *("routes.json", "servers.json", "clients.db"),
)
"""Damage to these is reported by the command that reads them."""


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("file", KEEPING_OUT)
def test_no_damage_to_a_secret_opens_anything(
    home: Home, run: Callable[[tuple[str, ...]], Seen], file: str, way: str
) -> None:
    (path,) = home.root.glob(f"*/{file}")
    damage(path, way)

    seen = run(BALANCER[0])

    assert (seen.status == 0) == (way == "missing"), seen
    assert way == "missing" or file in seen.err


@pytest.mark.parametrize("way", ["empty", "a loop", "dangling", "missing"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_no_state_of_a_folder_is_a_traceback(
    home: Home, run: Callable[[tuple[str, ...]], Seen], folder: str, way: str
) -> None:
    for command in EVERY:
        if (home.root / folder).is_dir() or os.path.lexists(home.root / folder):
            damage(home.root / folder, way)
        run(command)
