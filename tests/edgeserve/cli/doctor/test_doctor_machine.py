from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.edgeserve.cli.doctor.conftest import WHY_NOT
from tests.edgeserve.cli.doctor.examined import Doctor, folder
from tests.edgeserve.cli.doctor.machine import SECRET, Machine
from tests.edgeserve.damage import EVERY_WAY, damage
from tests.fakes.gguf import a_model
from tests.fleet.network import Host, network


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
    assert SECRET not in f"{found}"
    machine.token.chmod(0o600)
    assert machine.examine("token")[0].state == "ok"


def test_a_token_on_a_read_only_mount_is_given_by_a_container_s_engine(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.token.chmod(0o444)
    found = os.statvfs_result((0,) * 8 + (os.ST_RDONLY, 0))
    monkeypatch.setattr(os, "statvfs", lambda _path: found)

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


def test_a_model_of_the_folder_that_is_also_named_counts_once(
    machine: Machine,
) -> None:
    path = a_model(machine.models / "small.F16.gguf")
    machine.set(node_models=str(path))
    (found,) = machine.examine("models")

    assert found.said == f"1 in {machine.models} can be read"


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


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("file", ["config/token", "state/node.json"])
def test_whatever_a_file_looks_like_each_check_ends_with_a_sentence(
    machine: Machine, file: str, way: str
) -> None:
    path = machine.root / file
    path.write_text(SECRET)
    damage(path, way)

    for check in ("state", "disk", "token", "models", "multicast"):
        found = machine.examine(check)
        assert found
        assert all(each.said for each in found)
    assert machine.examine("nodes") == [], "none runs here that could be asked"


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
    home = folder(path, SECRET)
    (home / "state").mkdir()
    before = f"mount -t tmpfs -o {options} tmpfs {home}/state"
    return Doctor(host, home, ("balancer",), before).start()
