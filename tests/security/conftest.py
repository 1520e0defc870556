"""A fleet to attack; skipped, with the reason, where networks cannot be made."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.fakes.gguf import a_model
from tests.fleet.fleet import Fleet, Process, fleet
from tests.fleet.llama_server import script
from tests.fleet.network import Host, impossible

WHY_NOT = impossible()
HEAD_SECONDS = "2"
"""How long the fleet waits for a handshake or a head: tests wait as long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need networks."""
    here = Path(__file__).parent
    for item in items:
        fixtures: list[str] = getattr(item, "fixturenames", [])
        if item.path.is_relative_to(here) and "engine_flags" in fixtures:
            item.add_marker(pytest.mark.fleet)
            if WHY_NOT:
                item.add_marker(pytest.mark.skip(reason=WHY_NOT))


@pytest.fixture(scope="session")
def engine_flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags for a node whose engine is a fake that takes its time."""
    folder = tmp_path_factory.mktemp("engine")
    model = a_model(folder / "small-F16.gguf")
    flags = ("--decode", "100", "--length", "100000")
    path = script(folder / "llama-server", *flags)
    return ["--llama-server", str(path), "--model", str(model), "--slots", "4"]


class Town:
    """A node, a balancer, a client and a stranger."""

    def __init__(self, made: Fleet, engine_flags: list[str]) -> None:
        self.fleet = made
        flags = ("--name", "attic", "--head-seconds", HEAD_SECONDS, *engine_flags)
        self.node: Process = made.node(made.network.host("attic"), *flags)
        self.balancer: Process = made.balancer(
            made.network.host("balancer"), "--head-seconds", HEAD_SECONDS
        )
        self.stranger: Host = made.network.host("stranger")

    @property
    def node_id(self) -> str:
        """The id of the node, as everybody on the network can read it."""
        return self.identity[0]

    @property
    def identity(self) -> tuple[str, bytes]:
        """The id of the node and its stored key and certificate."""
        from edgeserve.security.certificates import certificate_in

        (path,) = (self.node.folder / "state").rglob("node.pem")
        pem = path.read_bytes()
        return certificate_in(pem).id, pem


@pytest.fixture(scope="session")
def town(
    tmp_path_factory: pytest.TempPathFactory, engine_flags: list[str]
) -> Generator[Town]:
    """Run one fleet for all tests that leave it as it was."""
    with fleet(tmp_path_factory.mktemp("town")) as made:
        yield Town(made, engine_flags)


@pytest.fixture
def own_town(tmp_path: Path, engine_flags: list[str]) -> Generator[Town]:
    """Run a fleet for one test that changes it."""
    with fleet(tmp_path) as made:
        yield Town(made, engine_flags)
