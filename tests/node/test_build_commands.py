import json
from pathlib import Path

from click.testing import CliRunner, Result

from node.engine_commands import engine
from node.engines.builds import NoSuchBuild, use
from tests.node.test_builds import a_build


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

    assert "nodes will use a" in call("use", "a", "--state-dir", tmp_path).stdout
    refused = call("use", "b", "--state-dir", tmp_path)

    assert isinstance(refused.exception, NoSuchBuild)
