from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from edgeserve.cli.doctor import here as looking
from edgeserve.cli.doctor.checks import CHECKS
from edgeserve.cli.doctor.finding import Finding, lines
from edgeserve.cli.doctor.here import Role, RunningProcess, here, started
from edgeserve.cli.doctor.multicast import Announced, Heard
from edgeserve.cli.doctor.nodes import AskedNode, peer_findings
from edgeserve.wire import PROTOCOL
from tests.edgeserve.cli.doctor.conftest import WHY_NOT
from tests.edgeserve.cli.doctor.examined import Doctor, folder
from tests.edgeserve.damage import EVERY_WAY, damage
from tests.fakes.gguf import a_model
from tests.fakes.terminal import Terminal
from tests.fleet.llama_server import script
from tests.fleet.network import Host, network
from tests.patience import PATIENCE

TOKEN = "token-that-is-nowhere-else"


@dataclass
class Machine:
    """A machine of a test's own: folders, and flags as variables."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    role: Role = "node"

    @property
    def token(self) -> Path:
        return self.root / "config" / "token"

    @property
    def models(self) -> Path:
        return self.root / "models"

    def set(self, **settings: str) -> None:
        for name, value in settings.items():
            self.monkeypatch.setenv(f"EDGESERVE_{name.upper()}", value)

    def examine(self, check: str, url: str | None = None) -> list[Finding]:
        """Run one check, for what it finds."""
        examined = here(self.role, None, url, None)
        examined.heard.set_result(Heard())
        return list(CHECKS[check].run(examined))

    def problem(self, check: str, url: str | None = None) -> Finding:
        """Run one check, for its only problem."""
        (found,) = [e for e in self.examine(check, url) if e.state == "problem"]
        return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine on which nothing runs, whatever else this one is doing."""
    monkeypatch.setattr(looking, "running_processes", lambda: iter(()))
    made = Machine(folder(tmp_path / "home", TOKEN), monkeypatch)
    (made.root / "models").mkdir()
    (made.root / "state").mkdir()
    made.set(
        config_dir=str(made.root / "config"),
        state_dir=str(made.root / "state"),
        models_dir=str(made.models),
        node_llama_server=str(script(tmp_path / "llama-server")),
    )
    return made


@pytest.mark.parametrize("check", ["engine", "gpu", "models", "memory", "state"])
def test_on_a_sound_machine_a_check_finds_no_problem(
    machine: Machine, check: str
) -> None:
    a_model(machine.models / "small.F16.gguf")

    assert [each.state for each in machine.examine(check)] == ["ok"]


def test_a_token_that_all_can_read_is_found_and_never_shown(machine: Machine) -> None:
    machine.token.chmod(0o644)
    found = machine.problem("token")

    assert found.name == "token/readable"
    assert found.remedy == f"chmod 600 {machine.token}"
    assert TOKEN not in f"{found}"
    machine.token.chmod(0o600)
    assert machine.examine("token")[0].state == "ok"


def test_a_token_that_cannot_be_used_is_found(machine: Machine) -> None:
    machine.token.write_text("short")

    assert machine.problem("token").name == "token/unusable"


def test_a_model_that_is_cut_short_is_found(machine: Machine) -> None:
    path = a_model(machine.models / "small.F16.gguf")
    os.truncate(path, path.stat().st_size - 4096)
    found = machine.problem("models")

    assert found.name == "models/cut"
    assert str(path) in found.said
    assert found.remedy.startswith(f"rm {path}")


def test_a_file_that_is_no_model_is_not_to_be_removed(machine: Machine) -> None:
    (machine.models / "notes.gguf").write_text("no model at all, but perhaps dear")
    found = machine.problem("models")

    assert found.name == "models/unusable"
    assert found.remedy.startswith("edgeserve quantize inspect ")


def test_a_machine_without_models_is_told_how_to_get_one(machine: Machine) -> None:
    found = machine.problem("models")

    assert (found.name, found.remedy) == ("models/none", "edgeserve pull")


def test_too_little_memory_is_found_with_the_arithmetic(machine: Machine) -> None:
    a_model(machine.models / "small.F16.gguf")
    machine.set(node_memory_mib="1")
    found = machine.problem("memory")

    assert found.name == "memory/too-little"
    assert "needs" in found.said
    assert found.remedy.startswith("edgeserve node start --memory-mib ")


def test_a_broken_engine_library_is_found(machine: Machine) -> None:
    server = machine.root / "broken"
    server.write_text("#!/bin/sh\necho 'cannot open libggml.so' >&2; exit 127\n")
    server.chmod(0o755)
    machine.set(node_llama_server=str(server))
    found = machine.problem("engine")

    assert found.name == "engine/none"
    assert "libggml.so" in found.said
    assert found.remedy == "edgeserve node start --engine bundled"


def test_a_broken_bundled_engine_is_found(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGESERVE_NODE_LLAMA_SERVER")
    machine.set(node_engine="bundled")
    (machine.root / "xllamacpp.py").write_text("raise ImportError('no libgomp.so.1')")
    monkeypatch.setenv("PYTHONPATH", str(machine.root))
    found = machine.problem("engine")

    assert found.name == "engine/none"
    assert "apt-get install libgomp1" in found.said


def test_an_engine_that_starts_and_dies_is_found(machine: Machine) -> None:
    server = machine.root / "dying"
    server.write_text(
        '#!/bin/sh\ncase "$1" in --version) echo version: 1;; --list-devices) ;;\n'
        "*) echo 'illegal instruction' >&2; exit 4;; esac\n"
    )
    server.chmod(0o755)
    machine.set(node_llama_server=str(server))
    found = machine.problem("engine")

    assert found.name == "engine/broken"
    assert "illegal instruction" in found.said


def test_a_llama_server_that_is_passed_over_is_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGESERVE_NODE_LLAMA_SERVER")
    (machine.root / "bin").mkdir()
    server = machine.root / "bin" / "llama-server"
    server.write_text("#!/bin/sh\nexit 3\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{server.parent}{os.pathsep}{os.environ['PATH']}")
    found = machine.problem("engine")

    assert found.name == "engine/broken"
    assert found.remedy == "edgeserve engine build"


def test_a_gpu_that_the_engine_leaves_idle_is_found(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = machine.root / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771, 143000'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{machine.root}{os.pathsep}{os.environ['PATH']}")
    found = machine.problem("gpu")

    assert (found.name, found.remedy) == ("gpu/unused", "edgeserve engine build")
    assert "NVIDIA H200" in found.said


def test_a_port_that_is_taken_is_found_with_who_has_it(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        machine.set(node_port=str(taken.getsockname()[1]))
        found = machine.problem("ports")

    assert found.name == "ports/taken"
    assert f"process {os.getpid()}" in found.said
    assert found.remedy.startswith("edgeserve node start --port ")


def test_a_state_folder_that_is_a_file_is_found(machine: Machine) -> None:
    (machine.root / "file").touch()
    machine.set(state_dir=str(machine.root / "file"))

    assert machine.problem("state").name == "state/no-folder"


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


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("file", ["config/token", "state/node.json"])
def test_whatever_a_file_looks_like_each_check_ends_with_a_sentence(
    machine: Machine, file: str, way: str
) -> None:
    path = machine.root / file
    path.write_text(TOKEN)
    damage(path, way)

    for check in ("state", "disk", "token", "models", "multicast"):
        found = machine.examine(check)
        assert found
        assert all(each.said for each in found)
    assert machine.examine("nodes") == [], "none runs here that could be asked"


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


needs_root = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


@pytest.mark.fleet
@needs_root
def test_a_full_disk_and_a_folder_that_takes_nothing_are_found(tmp_path: Path) -> None:
    with network() as net:
        host = net.host("full")
        doctors = [
            mounted(host, tmp_path / name, options)
            for name, options in (("full", "size=256k"), ("fixed", "ro"))
        ]
        full, fixed = (each.examined() for each in doctors)

    assert {"disk/full"} <= full.problems, full.out
    assert {"state/not-writable"} <= fixed.problems, fixed.out
    assert "chown" in fixed.of("state/not-writable")["remedy"]


def mounted(host: Host, path: Path, options: str) -> Doctor:
    """Examine a balancer whose state folder is a file system of its own."""
    home = folder(path, TOKEN)
    (home / "state").mkdir()
    before = f"mount -t tmpfs -o {options} tmpfs {home}/state"
    return Doctor(host, home, ("balancer",), before).start()
