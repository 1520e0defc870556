"""Keys as a person meets them: a real balancer process, and commands beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from node.engines.process import free_port
from tests.patience import PATIENCE

COMMAND = (sys.executable, "-m", "edgeserve")


class Machine:
    """Folders, and a port, of one machine's balancer."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.state = home / "state"
        self.environ = {
            **os.environ,
            "EDGESERVE_CONFIG_DIR": str(home / "config"),
            "EDGESERVE_STATE_DIR": str(self.state),
            "PYTHONUNBUFFERED": "1",
        }

    @contextmanager
    def balancer(self, *flags: str) -> Generator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [
                *(*COMMAND, "balancer", "start", "--no-discover"),
                *("--port", str(self.port), *flags),
            ],
            env=self.environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert "listening on" in process.stdout.readline()
            yield process
        finally:
            process.kill()
            process.communicate()

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self, key: str = "") -> int:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        asked = urllib.request.Request(f"{self.url}/v1/models", headers=headers)
        try:
            with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


def test_commands_and_a_running_balancer_agree_also_after_a_kill_and_a_takeover(
    tmp_path: Path,
) -> None:
    here = Machine(tmp_path)
    with here.balancer() as process:
        assert here.status() == 200

        key = here.run("key", "new", "--name", "laptop").strip()
        other = here.run("key", "new", "--name", "phone").strip()

        assert [here.status(), here.status(key)] == [401, 200]
        assert json.loads(here.run("nodes", "--json", "--url", here.url)) == []
        here.run("key", "revoke", "phone")
        assert here.status(other) == 401
        process.kill()
        process.wait(PATIENCE)

    with here.balancer() as old:
        assert [here.status(other), here.status(key)] == [401, 200]
        with here.balancer("--takeover"):
            assert old.wait(PATIENCE) == 0
            assert here.run("usage", "--json", "--url", here.url).strip() == "[]"
            here.run("key", "limit", "laptop", "--expires", "12h")
            assert here.status(key) == 200
