"""The compose files as they are: a network of their own, and the machine's."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Generator
from pathlib import Path

import pytest

from node.engines.process import free_port
from tests.containers.podman import Container, podman, told, until

FOLDER = Path(__file__).parents[2] / "deploy" / "containers"
COMPOSE = ("podman-compose", "--in-pod=false", "-f")


class Compose:
    """A project of containers under a name of its own."""

    def __init__(self, secrets: Path, file: str) -> None:
        self._file = FOLDER / file
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        self._environ = {
            **os.environ,
            "EDGESERVE_SECRETS": str(secrets),
            "EDGESERVE_PORT": str(free_port()),
            "EDGESERVE_MEMORY": "1g",
            # Nothing but loopback is here, so that multicast reaches nobody.
            "EDGESERVE_BALANCER": "http://127.0.0.1:8080",
        }

    def __call__(self, *argv: str) -> None:
        """Run `podman-compose …`, or fail with what it said."""
        done = subprocess.run(
            [*COMPOSE, str(self._file), "-p", self.name, *argv],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def containers(self, service: str) -> list[Container]:
        """Return the containers of a service."""
        label = f"label=com.docker.compose.service={service}"
        project = f"label=com.docker.compose.project={self.name}"
        filters = (f"--filter={label}", f"--filter={project}")
        return [Container(each) for each in told("ps", "-q", *filters).split()]


@pytest.fixture(params=["compose.yaml"])
def compose(
    secrets: Path, models: Path, request: pytest.FixtureRequest
) -> Generator[Compose]:
    """The project of a file, with a small model in its volume."""
    project = Compose(secrets, request.param)
    volume = f"{project.name}_models"
    told("volume", "create", volume)
    folder = Path(told("volume", "mount", volume))
    for model in models.iterdir():
        shutil.copy(model, folder)
    try:
        yield project
    finally:
        for each in (*project.containers("node"), *project.containers("balancer")):
            podman("rm", "--force", "--volumes", "--time=1", each.name)
        project("down", "--volumes")


def test_nodes_find_the_balancer_by_its_name(compose: Compose) -> None:
    compose("up", "--detach", "--no-build", "--scale", "node=2")
    (balancer,) = compose.containers("balancer")
    nodes = compose.containers("node")
    until(
        lambda: balancer.log.count("serves smollm2") == 2,
        lambda: "\n".join(each.log for each in (balancer, *nodes)),
    )

    answer = balancer.answer()

    assert answer["choices"][0]["message"]["content"]
    assert len(nodes) == 2
    assert all(each.is_healthy() for each in (balancer, *nodes))


@pytest.mark.parametrize("compose", ["compose.host.yaml"], indirect=True)
def test_in_the_machines_network_a_node_serves_behind_the_balancer(
    compose: Compose,
) -> None:
    compose("up", "--detach", "--no-build")
    (balancer,), (node,) = compose.containers("balancer"), compose.containers("node")
    until(lambda: "serves smollm2" in balancer.log, lambda: balancer.log + node.log)

    answer = balancer.answer()

    assert answer["choices"][0]["message"]["content"]
    assert balancer.is_healthy()
    assert node.is_healthy()
