from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from balancer.discovery.dns import Behind, NodeName
from edgeserve.cli.doctor import nodes
from edgeserve.cli.doctor.balancer import Asked, answers, findings
from edgeserve.cli.doctor.here import here
from edgeserve.cli.doctor.multicast import Announced
from edgeserve.cli.doctor.nodes import AskedNode, peer_findings
from edgeserve.wire import PROTOCOL
from tests.edgeserve.cli.doctor.machine import Machine


def test_a_balancer_that_is_named_and_not_there_is_found(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = machine.problem("balancer", f"http://127.0.0.1:{port}")

    assert found.name == "balancer/refused"
    assert found.remedy == "edgeserve balancer start"


def test_what_is_no_balancer_is_found(machine: Machine) -> None:
    with (
        HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server,
        serving(server),
    ):
        url = f"http://127.0.0.1:{server.server_port}"
        found = machine.problem("balancer", url)

    assert found.name == "balancer/stranger"


@pytest.mark.parametrize(
    ("status", "state"), [(200, "ok"), (401, "problem"), (503, "unknown")]
)
def test_only_who_is_let_in_has_a_good_key(status: int, state: str) -> None:
    asked = Asked(url="http://127.0.0.1:8080", key=status)

    assert [e.state for e in findings(asked, sure=True) if e.check == "key"] == [state]


def test_a_machine_without_a_key_has_no_wrong_one() -> None:
    asked = Asked(url="http://127.0.0.1:8080", key=401, keyed=False)
    (found,) = [each for each in findings(asked, sure=True) if each.check == "key"]

    assert found.state == "unknown"
    assert "a node needs none" in found.said


def test_a_node_is_asked_once_for_a_key_of_a_client(machine: Machine) -> None:
    examined = here(machine.role, None, None, None)
    asked = Asked(url="http://nuc:8080", key=401, nodes=401, keyed=False)
    said = [*findings(asked, sure=True), *nodes.listed(examined, asked)]

    (found,) = [each for each in said if "--api-key-file" in each.remedy]
    assert "its nodes are not listed" in found.said


@pytest.mark.parametrize("status", [401, 503])
def test_one_key_has_one_finding(status: int, machine: Machine) -> None:
    examined = here(machine.role, None, None, None)
    asked = Asked(url="http://nuc:8080", key=status, nodes=status)
    said = [*findings(asked, sure=True), *nodes.listed(examined, asked)]

    assert [e.check for e in said if e.check in {"key", "nodes"}] == ["key"]


@pytest.mark.parametrize("content", [None, "short"])
def test_a_key_file_without_a_good_key_is_a_wrong_key(
    machine: Machine, content: str | None
) -> None:
    key = machine.root / "key"
    if content:
        key.write_text(content)
    examined = here("node", None, None, key)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    asked = replace(answers(examined, url, named=True), why="", key=401, keyed=False)

    (found,) = [e for e in findings(asked, sure=True) if e.check == "key"]
    assert found.name == "key/wrong"
    assert str(key) in found.said


@contextmanager
def serving(server: HTTPServer) -> Generator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def test_a_listed_node_that_does_not_answer_is_found(machine: Machine) -> None:
    machine.role = "balancer"
    machine.set(balancer_nodes="http://127.0.0.1:1")
    found = machine.problem("nodes")

    assert found.name == "nodes/unreachable"
    assert "127.0.0.1:1" in found.said


def test_a_name_without_nodes_is_found(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(name: NodeName) -> Behind:
        assert name.url == "dns+srv://nodes.example"
        return Behind()

    monkeypatch.setattr(nodes, "look_up", nothing)
    machine.role = "balancer"
    machine.set(balancer_nodes="dns+srv://nodes.example")
    found = machine.problem("nodes")

    assert found.name == "nodes/unreachable"
    assert "DNS has no _edgeserve._tcp.nodes.example" in found.said


def test_a_node_of_another_release_is_told_by_its_announcement() -> None:
    at = Announced(
        name="attic",
        id="a" * 32,
        protocol=str(PROTOCOL - 1),
        port=8090,
        addresses=("10.0.0.1",),
        heard_from="10.0.0.1",
        interface="eth0",
    )
    (found,) = peer_findings(AskedNode(label="attic", urls=(), announced=at))

    assert found.name == "version/protocol"
