"""podman: containers with a container's limits, in a network of their own."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE

WAIT = PATIENCE * (5 if os.environ.get("EMULATED") else 1)
"""Another processor, which qemu pretends, needs ten times the time and more."""

KEY = "key-of-the-clients-here"

LIMITS = (
    *("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"),
    *("--security-opt=mask=/sys/class", "--shm-size=64m", "--tmpfs=/tmp:size=64m"),
    # A user without a name and a home; the group is what the images promise.
    *("--user=43210:0", "--unsetenv=HOME"),
)

QUESTION = {
    "model": "smollm2-135m-instruct",
    "messages": [{"role": "user", "content": "Say hello."}],
    "max_tokens": 16,
    "temperature": 0,
}


def podman(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run `podman …`; what fails is left to the caller."""
    return subprocess.run(
        ["podman", *argv], capture_output=True, text=True, timeout=300
    )


def told(*argv: str) -> str:
    """Return what `podman …` prints, or fail with what it said."""
    done = podman(*argv)
    assert done.returncode == 0, f"podman {' '.join(argv)}: {done.stderr}"
    return done.stdout.strip()


@dataclass(frozen=True)
class Container:
    """A container that runs."""

    name: str

    def exec(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return podman("exec", self.name, *argv)

    @property
    def log(self) -> str:
        """What it has said."""
        done = podman("logs", self.name)
        return done.stdout + done.stderr

    @property
    def address(self) -> str:
        """Its address in its network; it may have the machine's own."""
        inspected: Any = json.loads(told("inspect", self.name))[0]
        networks = inspected["NetworkSettings"].get("Networks") or {}
        found = [each["IPAddress"] for each in networks.values()]
        return str((found and found[0]) or "127.0.0.1")

    def is_healthy(self) -> bool:
        """Whether the image's own health check succeeds."""
        return podman("healthcheck", "run", self.name).returncode == 0

    def stop(self) -> int:
        """Ask it to end, as an engine does; return its exit status."""
        told("stop", "--time=60", self.name)
        return int(told("inspect", "--format={{.State.ExitCode}}", self.name))

    def post(self, body: Mapping[str, Any]) -> urllib.request.Request:
        """Return a question to the balancer that it is."""
        return urllib.request.Request(
            f"http://{self.address}:8080/v1/chat/completions",
            json.dumps(body).encode(),
            {"authorization": f"Bearer {KEY}", "content-type": "application/json"},
        )

    def answer(self) -> Any:
        """Ask the balancer that it is, and return the answer."""
        with urllib.request.urlopen(self.post(QUESTION), timeout=WAIT) as answer:
            return json.load(answer)


def until(happened: Callable[[], bool], what: Callable[[], str]) -> None:
    """Wait for something outside of this process."""
    ends = time.monotonic() + WAIT
    while not happened():
        assert time.monotonic() < ends, what()
        time.sleep(0.2)


@dataclass
class Pod:
    """Containers of one network, which find each other by name."""

    image: str
    secrets: Path
    models: Path
    network: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:8]}")
    containers: list[Container] = field(default_factory=list[Container])

    @classmethod
    @contextmanager
    def made(cls, image: str, secrets: Path, models: Path) -> Generator[Pod]:
        """Make the network; remove it and the containers at the end."""
        pod = cls(image, secrets, models)
        told("network", "create", pod.network)
        try:
            yield pod
        finally:
            for each in pod.containers:
                podman("rm", "--force", "--volumes", "--time=1", each.name)
            told("network", "rm", pod.network)

    def start(self, role: str, memory: str, *command: str) -> Container:
        """Start a container."""
        name = f"{self.network}-{role}"
        told(
            *("run", "--detach", "--name", name, f"--hostname={role}"),
            *("--network", self.network, f"--network-alias={role}", *LIMITS),
            *("--memory", memory, "--volume", f"{self.secrets}:/run/secrets:ro"),
            *("--volume", f"{self.models}:/srv/edgeserve/models:ro"),
            *("--env=EDGESERVE_TOKEN_FILE=/run/secrets/token", self.image, *command),
        )
        self.containers.append(Container(name))
        return self.containers[-1]

    def balancer(self) -> Container:
        """Start a balancer that finds no node by itself."""
        keys = "--api-key-file=/run/secrets/api-keys"
        return self.start(
            "balancer", "512m", "balancer", "start", "--no-discover", keys
        )

    def node(self, memory: str = "1g") -> Container:
        """Start a node that knows the balancer by its name."""
        return self.start(
            "node", memory, "node", "start", "--balancer", "http://balancer:8080"
        )
