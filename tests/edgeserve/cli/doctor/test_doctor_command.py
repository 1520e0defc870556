from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeserve.cli.doctor import here as looking
from edgeserve.cli.doctor.checks import CHECKS
from edgeserve.cli.doctor.finding import Finding, lines
from edgeserve.cli.doctor.folders import settings
from edgeserve.cli.doctor.here import RunningProcess, here, started
from edgeserve.cli.doctor.multicast import Heard
from tests.edgeserve.cli.doctor.machine import Machine
from tests.fakes.terminal import Terminal
from tests.patience import PATIENCE


def test_what_ran_here_decides_what_is_examined(machine: Machine) -> None:
    state = machine.root / "state"
    assert here(None, None, None, None).roles == {"node", "balancer"}
    (state / "clients.db").touch()
    assert here(None, None, None, None).roles == {"balancer"}
    (state / "node.json").touch()
    assert here(None, None, None, None).roles == {"node", "balancer"}
    (state / "clients.db").unlink()
    assert here(None, None, None, None).roles == {"node"}
    assert here("balancer", None, None, None).roles == {"balancer"}


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("/opt/edgeserve/bin/python /opt/edgeserve/bin/edgeserve node start", "node"),
        ("python -m edgeserve balancer start --port 0", "balancer"),
        ("edgeserve node plan", None),
        ("vi edgeserve", None),
        ("python -m http.server", None),
    ],
)
def test_a_process_is_known_by_its_command_line(command: str, role: str) -> None:
    assert started(command.split())[0] == role


def test_a_wrong_role_is_a_usage_error(edgeserve: Terminal) -> None:
    assert edgeserve("doctor", "router").status == 2


@pytest.mark.parametrize("url", ["bla", "ftp://nuc", "http://nuc:port"])
def test_a_wrong_url_is_a_usage_error(
    url: str, machine: Machine, edgeserve: Terminal
) -> None:
    seen = edgeserve("doctor", "--url", url)

    assert machine.root.exists()
    assert (seen.status, seen.out) == (2, "")
    assert seen.err.startswith(f"edgeserve: --url is '{url}'")


def test_of_several_nodes_the_one_of_this_terminal_is_examined_and_said(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def runs(pid: int, *arguments: str) -> RunningProcess:
        return RunningProcess(
            role="node", pid=pid, uid=0, arguments=arguments, environ={}
        )

    state = str(machine.root / "state")
    three = [
        runs(1, "--port", "8100", "--state-dir", "/srv/state"),
        runs(2, "--port", "8200", "--state-dir", state),
        runs(3, "--state-dir", "/srv/other"),
    ]
    monkeypatch.setattr(looking, "running_processes", lambda: iter(three))
    found = here(None, None, None, None)

    assert found.running["node"].pid == 2
    assert found.node.settings.port == 8200
    (line,) = [each.said for each in settings(found) if "several" in each.said]
    assert f"process 2, with its state in {state}" in line


def test_a_check_that_fails_itself_ends_no_other(
    monkeypatch: pytest.MonkeyPatch, edgeserve: Terminal
) -> None:
    def broken(_: object) -> Iterator[Finding]:
        raise RuntimeError("no such thing")

    from edgeserve.cli.doctor import checks

    two = {"gpu": checks.Check(broken), "disk": CHECKS["disk"]}
    monkeypatch.setattr(checks, "CHECKS", two)
    monkeypatch.setattr(checks, "listen", Heard)
    monkeypatch.setattr(looking, "running_processes", lambda: iter(()))
    seen = edgeserve("doctor", "balancer", "--json")

    found = json.loads(seen.out)
    assert [each["state"] for each in found] == ["unknown", "ok"]
    assert "no such thing" in found[0]["found"]
    assert seen.status == 0


def test_a_check_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeserve.cli.doctor import checks

    over = threading.Event()

    def hung(_: object) -> list[Finding]:
        over.wait(PATIENCE)
        return []

    monkeypatch.setattr(looking, "running_processes", lambda: iter(()))
    monkeypatch.setattr(checks, "CHECKS", {"gpu": checks.Check(hung)})
    monkeypatch.setattr(checks, "listen", Heard)
    (found,) = checks.run(here("node", None, None, None), seconds=0.05)
    over.set()

    assert (found.check, found.state) == ("gpu", "unknown")
    assert found.said == "took more than 0.05 s, and was given up"


def test_a_process_that_runs_tells_its_own_folders(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {f"EDGESERVE_{name}_DIR": f"/srv/{name}" for name in ("CONFIG", "MODELS")}
    runs = RunningProcess(
        role="node",
        pid=1,
        uid=0,
        arguments=("--port", "8100", "--state-dir", "/srv/state"),
        environ={**places, "EDGESERVE_NODE_SLOTS": "7"},
    )
    monkeypatch.setattr(looking, "running_processes", lambda: iter((runs,)))
    found = here(None, None, None, None)

    node = found.node.settings
    assert found.roles == {"node"}
    assert (node.port, node.slots) == (8100, 7)
    assert (node.state_dir, node.models_dir) == (
        Path("/srv/state"),
        Path("/srv/MODELS"),
    )
    assert found.token_file == Path("/srv/CONFIG/token")
    assert node.llama_server is None, "a variable of this terminal does not count"
    assert machine.token.exists()


def test_a_command_stays_on_one_line_to_be_pasted() -> None:
    said, remedy = "word " * 40, "edgeserve " + "x" * 200
    found = Finding(check="a", state="problem", said=said, cause="b", remedy=remedy)
    *sentence, command = lines([found], 80)

    assert max(map(len, sentence)) <= 80
    assert command.endswith(remedy)
