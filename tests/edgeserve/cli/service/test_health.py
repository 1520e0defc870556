"""`edgeserve health`: the health check of containers."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Callable, Generator
from typing import Literal

import pytest

from edgeserve.cli.doctor import here
from edgeserve.cli.doctor.here import RunningProcess
from edgeserve.cli.service.health import ServicePort
from tests.fakes.terminal import Terminal

Runs = Callable[..., None]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Return `runs(role=port)`: which processes run here, and on which ports."""

    def set_(**ports: int) -> None:
        role: Literal["node", "balancer"]
        found = list[RunningProcess]()
        for role in ("node", "balancer"):
            if role in ports:
                words = ("--host", "127.0.0.1", "--port", str(ports[role]))
                found.append(
                    RunningProcess(role=role, pid=1, uid=1, arguments=words, environ={})
                )
        monkeypatch.setattr(here, "running_processes", lambda: iter(found))

    return set_


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def serving() -> Generator[int]:
    """The port of a server that is healthy."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def closed() -> Generator[int]:
    """A port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_what_serves_is_healthy(runs: Runs, serving: int, edgeserve: Terminal) -> None:
    runs(node=serving)

    seen = edgeserve("health")

    assert seen.status == 0
    assert seen.out == f"node serves at 127.0.0.1:{serving}\n"


def test_one_that_does_not_answer_is_enough_to_be_unhealthy(
    runs: Runs, serving: int, closed: int, edgeserve: Terminal
) -> None:
    runs(node=serving, balancer=closed)

    both, node = edgeserve("health"), edgeserve("health", "node")

    assert (both.status, node.status) == (1, 0)
    assert f"balancer gives no answer at 127.0.0.1:{closed}" in both.out


def test_a_process_with_another_state_folder_is_not_asked_but_named(
    serving: int, edgeserve: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--host", "127.0.0.1", "--port", str(serving))
    other = RunningProcess(
        role="node",
        pid=1,
        uid=1,
        arguments=(*words, "--state-dir", "/srv/other"),
        environ={},
    )
    monkeypatch.setattr(here, "running_processes", lambda: iter((other,)))

    seen = edgeserve("health")

    assert (seen.status, seen.out) == (1, "")
    assert seen.err.endswith(": EDGESERVE_STATE_DIR=/srv/other edgeserve health\n")


def test_a_service_of_the_whole_machine_is_asked(
    serving: int, edgeserve: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--host", "127.0.0.1", "--port", str(serving))
    places = {"EDGESERVE_STATE_DIR": "/var/lib/edgeserve-node"}
    service = RunningProcess(role="node", pid=1, uid=1, arguments=words, environ=places)
    monkeypatch.setattr(here, "running_processes", lambda: iter((service,)))

    assert edgeserve("health").status == 0


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert str(ServicePort("node", "::1", 8090)) == "[::1]:8090"


def test_where_nothing_runs_nothing_is_healthy(runs: Runs, edgeserve: Terminal) -> None:
    runs()

    seen = edgeserve("health", "balancer")

    assert seen.status == 1
    assert seen.err == "edgeserve: no balancer runs here\n"
