import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


@units
def test_a_unit_runs_a_command_that_exists(unit: Path) -> None:
    command = Unit(unit)["Service"]["ExecStart"]

    assert problems(command.replace("/opt/edgeserve/bin/", "")) == []


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


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed"
)
@units
def test_systemd_understands_the_unit(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    copy.write_text(
        unit.read_text().replace("/opt/edgeserve/bin/edgeserve", sys.executable)
    )

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    ours = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, ours) == (0, [])
