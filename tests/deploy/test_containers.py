"""The files of the container images, by what can be said without running them."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeserve.config.paths import OURS
from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.config.sources import variables
from tests.fakes.commands import problems
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "containers"
DOCKERFILES = sorted(FOLDER.glob("Dockerfile*"))
COMPOSE = sorted(FOLDER.glob("compose*.yaml"))

dockerfiles = pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: path.name)
compose_files = pytest.mark.parametrize("file", COMPOSE, ids=lambda path: path.name)

WHY_NOT = "needs linters; run `make check-containers`"


def lint(program: str, *argv: str, **environ: str) -> str:
    """Return what a linter says; skipped without it."""
    if shutil.which(program) is None:
        pytest.skip(WHY_NOT)
    done = subprocess.run(
        [program, *argv],
        cwd=FOLDER,
        env={"PATH": "/usr/bin:/bin", **environ},
        executable=shutil.which(program),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def services(file: Path) -> Mapping[str, Any]:
    """Return the services of a compose file, with what they take from another one."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc] # it has no types
        """Knows compose's own tags, too."""

    Loader.add_constructor("!reset", lambda _loader, _node: None)
    text = file.read_text()
    found: dict[str, Any] = yaml.load(text, Loader)["services"]  # noqa: S506 - a safe one
    for each in found.values():
        if where := each.get("extends"):
            inherited = services(FOLDER / where["file"])[where["service"]]
            each.update({**inherited, **each})
    return found


@dockerfiles
def test_hadolint_finds_nothing(file: Path) -> None:
    lint("hadolint", str(file))


@pytest.mark.parametrize(
    "files",
    [
        ("compose.yaml",),
        ("compose.host.yaml",),
        ("compose.yaml", "compose.cuda.yaml"),
        ("compose.host.yaml", "compose.cuda.yaml"),
    ],
    ids=" ".join,
)
def test_docker_compose_accepts_the_files(files: tuple[str, ...]) -> None:
    named = [word for file in files for word in ("-f", file)]

    lint("docker-compose", *named, "config", "--quiet")


@dockerfiles
def test_an_image_sets_only_variables_that_are_read(file: Path) -> None:
    found = set(re.findall(r"\b(EDGESERVE_\w+)=", file.read_text()))

    assert found == set(OURS)


@compose_files
def test_a_service_runs_a_command_that_exists_with_variables_that_are_read(
    file: Path,
) -> None:
    shapes = {"balancer": BalancerSettings, "node": NodeSettings}
    for name, service in services(file).items():
        set_ = set(service.get("environment", ()))
        words = [str(word) for word in service.get("command", ("node", "start"))]

        assert set_ <= set(variables(shapes[name]))
        assert problems(" ".join(["edgeserve", *words])) == []


@pytest.mark.parametrize("name", ["compose.yaml", "compose.host.yaml"])
def test_a_container_may_do_nothing_and_has_time_to_drain(name: str) -> None:
    for service in services(FOLDER / name).values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        grace = int(service["stop_grace_period"].removesuffix("s"))
        assert grace >= NodeSettings().drain_seconds + 10


@dockerfiles
def test_an_image_does_not_run_as_root(file: Path) -> None:
    last = file.read_text().rpartition("\nFROM ")[2]

    assert re.findall(r"^USER (.*)$", last, re.MULTILINE) == ["65532:0"]


def test_what_the_images_are_made_of_has_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]
    wanted = {name.partition(".")[0] for name in packages}
    wanted |= {project["project"]["readme"], *project["project"]["license-files"]}

    kept = (ROOT / ".dockerignore").read_text().splitlines()

    assert {f"!{each}" for each in {*wanted, "pyproject.toml"}} <= set(kept)
    assert kept[1] == "*"


def test_every_step_that_an_image_runs_exists() -> None:
    script = (FOLDER / "rootfs").read_text()
    there = set(re.findall(r"^(\w+)\)$", script, re.MULTILINE))
    run = {
        step
        for file in DOCKERFILES
        for step in re.findall(r"/rootfs (\w+)", file.read_text())
    }

    assert run == there


PAGE = ROOT / "docs" / "containers.md"


def test_the_page_names_files_and_settings_of_the_containers_that_there_are() -> None:
    text = PAGE.read_text()
    files = set(re.findall(r"(?:-f |`)((?:deploy/|compose|Dockerfile)[\w./]*)", text))
    settings = set(re.findall(r"\b(EDGESERVE_[A-Z]+|GPUS)\b", text))
    asked = "".join(each.read_text() for each in (*COMPOSE, *DOCKERFILES))

    assert len(files) >= 4
    assert [each for each in files if not any_file(each)] == []
    assert [each for each in settings if each not in asked] == []


def any_file(name: str) -> bool:
    return (ROOT / name).exists() or (FOLDER / name).exists()


def test_a_command_on_the_page_exists() -> None:
    text = PAGE.read_text()
    run = [f"edgeserve {line}" for line in re.findall(r"--no-deps node (.*)", text)]

    assert run
    assert [each for line in run for each in problems(line)] == []
