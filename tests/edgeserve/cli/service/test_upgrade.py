"""`edgeserve service upgrade` with real virtual environments, wheels and services."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.edgeserve.cli.service.home import Home, a_home, living
from tests.fakes.wheel import a_wheel

BROKEN = {
    "starts": {"balancer/app.py": "raise RuntimeError('not today')\n"},
    "speaks": {"edgeserve/cli/main.py": "raise RuntimeError('not today')\n"},
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Generator[Home]:
    """Node and balancer as services, from a wheel of this tree."""
    with living(a_home(tmp_path_factory.mktemp("service") / "home")) as home:
        home.settings()
        wheel = a_wheel(home.root, "0.1.0")
        seen = home.service("install", "--user", "--from", str(wheel))
        assert seen.returncode == 0, seen.stderr
        again = home.service("restart")
        assert again.returncode == 0, again.stderr
        yield home


def used(home: Home) -> Path:
    return (home.software / "current").resolve()


def releases(home: Home) -> set[str]:
    return {each.name for each in (home.software / "releases").iterdir()}


def test_a_new_version_takes_the_place_of_the_old_one(
    running: Home, tmp_path: Path
) -> None:
    old, before = used(running), running.pid("balancer")

    seen = running.service("upgrade", "--from", str(a_wheel(tmp_path, "0.1.5")))
    status = running.service("status")

    assert seen.returncode == 0, seen.stderr + running.log()
    assert "version 0.1.5 serves" in seen.stdout
    assert status.returncode == 0, status.stdout
    assert "version 0.1.5" in status.stdout
    assert running.pid("balancer") != before
    assert old.exists()


@pytest.mark.parametrize("how", BROKEN)
def test_a_version_that_does_not_serve_is_rolled_back(
    how: str, running: Home, tmp_path: Path
) -> None:
    old, kept = used(running), releases(running)
    wheel = a_wheel(tmp_path, "0.1.9", BROKEN[how])

    seen = running.service("upgrade", "--from", str(wheel), "--seconds", "5")
    status = running.service("status")

    assert seen.returncode == 1
    said = {"starts": "rolled back to version", "speaks": "not today"}
    assert said[how] in seen.stderr
    assert (used(running), releases(running)) == (old, kept)
    assert status.returncode == 0, status.stdout + running.log()


def test_what_cannot_be_installed_disturbs_nothing(
    running: Home, tmp_path: Path
) -> None:
    old, kept, before = used(running), releases(running), running.pid("balancer")
    wheel = tmp_path / "edgeserve-0.2.0-py3-none-any.whl"
    wheel.write_bytes(b"no wheel")

    seen = running.service("upgrade", "--from", str(wheel))
    nowhere = running.service("upgrade", "--from", str(tmp_path / "nowhere"))

    assert seen.returncode == 1
    assert "pip install" in seen.stderr
    assert nowhere.returncode == 1
    assert f"there is no {tmp_path / 'nowhere'}" in nowhere.stderr
    assert (used(running), releases(running)) == (old, kept)
    assert running.pid("balancer") == before
