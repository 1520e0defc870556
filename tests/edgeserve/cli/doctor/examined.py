"""Run `edgeserve doctor` on a host of its own, and read what it has found."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from tests.fleet.fleet import ROOT, SECONDS
from tests.fleet.network import Host

MAIN = """
import sys
from pathlib import Path
from edgeserve.cli.doctor import balancer, checks, interfaces, multicast, nodes
balancer.ASK_SECONDS = nodes.ASK_SECONDS = nodes.NODE_SECONDS = 30.0
checks.run.__defaults__ = (80.0,)
multicast.listen.__defaults__ = (4.0,)
interfaces.CONTAINERS = tuple(map(Path, sys.argv.pop(1).split()))
from edgeserve.cli.main import main
main(sys.argv[1:])
"""
"""The command with more patience, as the machine of the tests is busy, and with other
marks of a container, as the tests may run in one."""


@dataclass(frozen=True)
class Examined:
    """What the doctor has found, and how it ended."""

    status: int
    findings: Sequence[Mapping[str, Any]]
    out: str

    @property
    def problems(self) -> set[str]:
        """The names of the problems."""
        return {
            f"{each['check']}/{each['cause']}"
            for each in self.findings
            if each["state"] == "problem"
        }

    def of(self, name: str) -> Mapping[str, Any]:
        """Return the problem with a name."""
        check, _, cause = name.partition("/")
        (found,) = [
            each
            for each in self.findings
            if (each["check"], each["cause"]) == (check, cause)
        ]
        return found


@dataclass
class Doctor:
    """A doctor at work on a host. `before` is shell code, in a mount namespace."""

    host: Host
    folder: Path
    arguments: tuple[str, ...] = ()
    before: str = ""
    container: str = ""
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> Doctor:
        """Begin; several may examine at the same time."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            **{
                f"EDGESERVE_{name.upper()}_DIR": str(self.folder / name)
                for name in ("config", "state", "models")
            },
        }
        command = [sys.executable, "-c", MAIN, self.container, "doctor", "--json"]
        argv = [*command, *self.arguments]
        if self.before:
            argv = [
                "unshare",
                "-m",
                "sh",
                "-c",
                f'{self.before} && exec "$@"',
                "",
                *argv,
            ]
        with self._file("out").open("w") as out, self._file("err").open("w") as err:
            self.running = subprocess.Popen(
                ["ip", "netns", "exec", self.host.namespace, *argv],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        return self

    def _file(self, name: str) -> Path:
        return self.folder / f"doctor.{name}"

    def examined(self) -> Examined:
        """Wait for the findings."""
        assert self.running is not None
        status = self.running.wait(SECONDS)
        out, err = self._file("out").read_text(), self._file("err").read_text()
        assert out.startswith("["), (status, out, err)
        assert err == ""
        return Examined(status, json.loads(out), out)

    def end(self) -> None:
        """End it, if it still runs."""
        if self.running is not None:
            self.running.kill()
            self.running.wait()


def folder(path: Path, token: str | None) -> Path:
    """Make folders with a fleet token that only their owner reads."""
    (path / "config").mkdir(parents=True)
    if token:
        (path / "config" / "token").write_text(token)
        (path / "config" / "token").chmod(0o600)
    return path


@contextmanager
def false_balancer(host: Host, answers: Mapping[str, Any], date: str) -> Generator[str]:
    """Serve these answers on a host, with this Date; yields the URL."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path)
            body = json.dumps(found).encode()
            self.send_response_only(404 if found is None else 200)
            self.send_header("date", date)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the server's name for it

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer((host.address, 0), Answers, bind_and_activate=False) as server:
        server.socket.close()
        server.socket = host.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
        server.socket.bind((host.address, 0))
        server.server_activate()
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://{host.address}:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()
