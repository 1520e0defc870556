import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from node.engine_build.commands import engine
from node.engines.builds import NoSuchBuild, use
from tests.fakes.cmake import an_sdist, install
from tests.node.engines.test_builds import a_build


def call(*arguments: object) -> Result:
    return CliRunner().invoke(engine, [str(each) for each in arguments])


def test_list_shows_every_build_and_which_is_in_use(tmp_path: Path) -> None:
    assert "engine build" in call("list", "--state-dir", tmp_path).stdout
    for name in ("0c1e57098-cpu", "0c1e57098-cuda"):
        a_build(tmp_path, name)
    use(tmp_path, "0c1e57098-cuda")

    said = json.loads(call("list", "--json", "--state-dir", tmp_path).stdout)

    assert said["current"] == "0c1e57098-cuda"
    names = [each["name"] for each in said["builds"]]
    assert names == ["0c1e57098-cpu", "0c1e57098-cuda"]
    assert "in use" in call("list", "--state-dir", tmp_path).stdout


def test_use_changes_what_nodes_start(tmp_path: Path) -> None:
    a_build(tmp_path, "a")

    assert "nodes use a" in call("use", "a", "--state-dir", tmp_path).stdout
    refused = call("use", "b", "--state-dir", tmp_path)

    assert isinstance(refused.exception, NoSuchBuild)


@pytest.mark.parametrize(("seconds", "tenths"), [(0, [0, 50, 100]), (1e9, [0, 100])])
def test_a_build_writes_its_progress_line_by_line_to_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, tenths: list[int]
) -> None:
    stub = install(tmp_path / "stub")
    (stub / "c++").symlink_to("/bin/true")
    monkeypatch.setattr("node.engine_build.progress.QUIET_SECONDS", seconds)
    monkeypatch.setenv("PATH", f"{stub}{os.pathsep}{os.environ['PATH']}")
    sdist = an_sdist(tmp_path / "sdist.tar.gz")

    said = call(
        *("build", "--backend", "cpu", "--source", sdist),
        *("--state-dir", tmp_path / "state"),
    )

    assert said.exit_code == 0
    assert "0c1e57098-cpu works" in said.stdout
    compiling = [line for line in said.stderr.splitlines() if "compiling" in line]
    assert compiling == [f"compiling {each} %" for each in tenths]
