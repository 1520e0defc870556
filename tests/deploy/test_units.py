import configparser
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgeserve.cli.service.managers.units import quoted
from edgeserve.cli.service.managers.units import unit as rendered
from edgeserve.cli.service.places import ROLES, Role, system_places, unit_name
from edgeserve.config.settings import BalancerSettings, NodeSettings, SharedSettings
from tests.fakes.commands import problems
from tests.patience import PATIENCE

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
SHAPES: dict[str, type[SharedSettings]] = {
    "edgeserve-node": NodeSettings,
    "edgeserve-balancer": BalancerSettings,
}

units = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)


class Unit(configparser.ConfigParser):
    """Keys keep their case; of repeated ones the last counts, `lines` has all."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, interpolation=None)
        self.optionxform = str  # type: ignore[assignment,method-assign] # as documented
        self.read(path)
        self.lines = path.read_text().splitlines()


def test_there_is_a_unit_for_each_side() -> None:
    assert {path.stem for path in UNITS} == set(SHAPES)


@pytest.mark.parametrize("role", ROLES)
def test_the_units_here_are_those_that_the_command_writes(role: Role) -> None:
    text = rendered(role, system_places(Path("/etc/systemd/system")))

    assert (DEPLOY / f"{unit_name(role)}.service").read_text() == text


@units
def test_a_unit_runs_a_command_that_exists(unit: Path) -> None:
    command = Unit(unit)["Service"]["ExecStart"]

    assert problems(command.replace("/opt/edgeserve/current/bin/", "")) == []


@units
def test_a_unit_sets_only_variables_that_are_read(unit: Path) -> None:
    shape = SHAPES[unit.stem]
    lines = Unit(unit).lines
    read = {f"EDGESERVE_{folder}_DIR" for folder in ("CONFIG", "STATE", "MODELS")}
    for name in shape.__dataclass_fields__:
        read |= {f"EDGESERVE_{shape.SECTION.upper()}_{name.upper()}"}
    read |= {
        f"EDGESERVE_{name.upper()}" for name in SharedSettings.__dataclass_fields__
    }

    found = {m[1] for line in lines if (m := re.match(r"Environment=(\w+)=", line))}

    assert found
    assert found <= read


@units
def test_the_drain_ends_before_systemd_loses_patience(unit: Path) -> None:
    service = Unit(unit)["Service"]

    assert int(service["TimeoutStopSec"]) >= SHAPES[unit.stem]().drain_seconds + 10
    assert service["KillMode"] == "mixed"


@units
def test_a_service_comes_back_but_not_with_wrong_settings(unit: Path) -> None:
    service = Unit(unit)["Service"]

    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "2"


with_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed"
)


def verified(path: Path, *flags: str) -> tuple[int, list[str]]:
    """Have systemd read a unit; returns its status and what it says of it."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *flags, str(path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    ours = [line for line in done.stderr.splitlines() if path.name in line]
    return done.returncode, ours


@with_systemd
@units
def test_systemd_understands_the_unit(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    copy.write_text(
        unit.read_text().replace("/opt/edgeserve/current/bin/edgeserve", sys.executable)
    )

    assert verified(copy) == (0, [])


@with_systemd
@pytest.mark.parametrize("role", ROLES)
def test_systemd_understands_the_unit_of_a_user_with_an_odd_home(
    role: Role, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    software = tmp_path / "100 % mine"
    (software / "current" / "bin").mkdir(parents=True)
    (software / "current" / "bin" / "edgeserve").symlink_to(sys.executable)
    places = replace(
        system_places(tmp_path),
        scope="user",
        software=software,
        variables={"EDGESERVE_MODELS_DIR": str(software)},
    )
    copy = tmp_path / f"{unit_name(role)}.service"
    copy.write_text(rendered(role, places, ("--approve",)))

    assert verified(copy, "--user") == (0, [])
    assert quoted('a "b" %') == r'"a \"b\" %%"'


@pytest.mark.parametrize("role", ROLES)
def test_the_unit_of_a_user_keeps_what_needs_no_privileges(role: Role) -> None:
    places = system_places(Path("/x"))
    ours = set(rendered(role, replace(places, scope="user")).splitlines())
    system = set(rendered(role, places).splitlines())

    assert {"NoNewPrivileges=yes", "SystemCallFilter=@system-service"} <= ours
    assert len(ours & system) >= 20
    assert not {"DynamicUser=yes", "ProtectHome=yes", "CapabilityBoundingSet="} & ours
