"""What is examined: a machine alone, or a fleet where networks can be made."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from edgeserve.cli.doctor import here as looking
from tests.edgeserve.cli.doctor.examined import Doctor, folder
from tests.edgeserve.cli.doctor.machine import SECRET, Machine
from tests.fakes.gguf import a_model
from tests.fleet.fleet import TOKEN, Fleet, Process, fleet
from tests.fleet.llama_server import script
from tests.fleet.network import Host, impossible

WHY_NOT = impossible()
KEY = "key-of-the-clients-here"


class Ward:
    """A balancer that asks for keys, its node `attic`, and others with faults."""

    def __init__(self, made: Fleet, root: Path) -> None:
        self.fleet, self._root = made, root
        engine = script(root / "llama-server")
        self.model = a_model(root / "small-F16.gguf")
        keys = root / "keys"
        keys.write_text(KEY)
        flags = ("--llama-server", str(engine), "--model", str(self.model))
        self.balancer = made.start(
            made.network.host("balancer"),
            *("balancer", "start", "--port", "8080", "--api-key-file", str(keys)),
            *("--forget-seconds", "0.1"),
        )
        self.node: Process = self._node("attic", *flags)
        self.engine_flags = flags
        self._number = 0
        self.doctors: list[Doctor] = []

    def _node(self, name: str, *flags: str) -> Process:
        return self.fleet.node(
            self.fleet.network.host(name), "--name", name, "--slots", "1", *flags
        )

    @property
    def url(self) -> str:
        """The balancer's."""
        return f"http://{self.balancer.host.address}:8080"

    @property
    def admin_key(self) -> Path:
        """The key that the balancer leaves for commands of its machine."""
        return self.balancer.folder / "state" / "admin-8080.key"

    @property
    def as_admin(self) -> dict[str, str]:
        """Headers with that key."""
        return {"Authorization": f"Bearer {self.admin_key.read_text().strip()}"}

    def doctor(
        self,
        host: Host,
        *arguments: str,
        token: str | None = TOKEN,
        before: str = "",
        container: str = "",
    ) -> Doctor:
        """Start a doctor with folders of its own on a host."""
        self._number += 1
        mine = folder(self._root / f"doctor-{self._number}", token)
        doctor = Doctor(host, mine, arguments, before, container).start()
        self.doctors.append(doctor)
        return doctor


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Generator[Ward]:
    """Run one fleet for all tests of a module."""
    root = tmp_path_factory.mktemp("ward")
    with fleet(root) as made:
        ward = Ward(made, root)
        try:
            yield ward
        finally:
            for doctor in ward.doctors:
                doctor.end()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine on which nothing runs, whatever else this one is doing."""
    monkeypatch.setattr(looking, "running_processes", lambda: iter(()))
    made = Machine(folder(tmp_path / "home", SECRET), monkeypatch)
    (made.root / "models").mkdir()
    (made.root / "state").mkdir()
    made.set(
        config_dir=str(made.root / "config"),
        state_dir=str(made.root / "state"),
        models_dir=str(made.models),
        node_llama_server=str(script(tmp_path / "llama-server")),
    )
    return made
