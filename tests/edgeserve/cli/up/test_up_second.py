"""A second `edgeserve up` says where the first one serves, before it does anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from edgeserve.cli.doctor import here
from edgeserve.cli.doctor.here import RunningProcess
from edgeserve.cli.up import second
from edgeserve.config.paths import admin_key_file
from node.discovery.identity import no_node_in
from tests.fakes.endpoint import fake_endpoint
from tests.fakes.terminal import Terminal


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the state folder of a node that runs."""
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setenv("EDGESERVE_STATE_DIR", str(folder))
    monkeypatch.setenv("EDGESERVE_CONFIG_DIR", str(tmp_path / "config"))
    with no_node_in(folder):
        yield folder


@pytest.mark.parametrize("options", [(), ("--lan",), ("--port", "0")])
def test_it_names_the_address_and_how_to_see_it(
    options: tuple[str, ...], state: Path, edgeserve: Terminal
) -> None:
    with fake_endpoint({"/health": {"status": "ok"}}) as first:
        port = urlsplit(first.url).port or 0
        admin_key_file(state, 1).write_text("left by one that ended")
        admin_key_file(state, port).write_text("a key")

        seen = edgeserve("up", *options)

    assert (seen.status, seen.out) == (2, "")
    assert len(seen.err.splitlines()) == 1
    assert f"runs here already, at {first.url}; " in seen.err
    assert f"`edgeserve nodes --url {first.url}`" in seen.err
    assert not (state.parent / "config").exists()


def test_a_node_without_a_balancer_is_said_to_run(
    state: Path, edgeserve: Terminal
) -> None:
    seen = edgeserve("up")

    assert (seen.status, seen.out) == (2, "")
    assert f"a node runs here already, and keeps its state in {state}" in seen.err
    assert "edgeserve service status" in seen.err


def test_a_service_of_the_whole_machine_is_seen_in_its_other_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, edgeserve: Terminal
) -> None:
    monkeypatch.delenv("EDGESERVE_STATE_DIR")
    service = RunningProcess(role="node", pid=7, uid=1, arguments=(), environ=None)
    monkeypatch.setattr(here, "running_processes", lambda: iter((service,)))
    monkeypatch.setattr(second, "PROC", f"{tmp_path}/{{pid}}")
    (tmp_path / "7").write_text("0::/system.slice/edgeserve-node.service\n")

    seen = edgeserve("up")

    assert (seen.status, seen.out) == (2, "")
    assert "edgeserve-node is a service of the whole machine" in seen.err
    assert "EDGESERVE_STATE_DIR" in seen.err
