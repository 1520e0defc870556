"""A second `edgeserve up` says where the first one serves, before it does anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

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
