"""Fleets to test on; skipped, with the reason, where networks cannot be made."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.fakes.gguf import a_model
from tests.fleet.fleet import Fleet, Process, fleet
from tests.fleet.llama_server import script
from tests.fleet.network import impossible

WHY_NOT = impossible()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.fleet)
            item.add_marker(pytest.mark.timeout(600))
            if WHY_NOT:
                item.add_marker(pytest.mark.skip(reason=WHY_NOT))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that fake engines pretend to serve."""
    return a_model(tmp_path_factory.mktemp("models") / "small-F16.gguf")


@pytest.fixture(scope="session")
def hold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file exists, fake engines begin no answer to a stream."""
    return tmp_path_factory.mktemp("hold") / "hold"


@pytest.fixture(scope="session")
def fake_engine(
    tmp_path_factory: pytest.TempPathFactory, small: Path, hold: Path
) -> list[str]:
    """Flags for a node whose engine starts at once."""
    folder = tmp_path_factory.mktemp("engine")
    path = script(folder / "llama-server", "--hold", str(hold))
    return ["--llama-server", str(path), "--model", str(small), "--slots", "2"]


class Trio:
    """Three nodes and a balancer, which the tests of a module share."""

    def __init__(self, made: Fleet, flags: list[str]) -> None:
        self.fleet = made
        hosts = [made.network.host(name) for name in ("attic", "cellar", "kitchen")]
        self.nodes = {
            host.name: made.node(host, "--name", host.name, *flags) for host in hosts
        }
        self.balancer: Process = made.balancer(made.network.host("balancer"))


@pytest.fixture(scope="module")
def trio(
    tmp_path_factory: pytest.TempPathFactory, fake_engine: list[str]
) -> Generator[Trio]:
    """Run three nodes with fake engines, and a balancer that finds them by mDNS."""
    with fleet(tmp_path_factory.mktemp("trio")) as made:
        yield Trio(made, fake_engine)
