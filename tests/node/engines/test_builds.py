from pathlib import Path

import msgspec
import pytest

from node.engines.builds import (
    Build,
    NoSuchBuild,
    builds,
    engines_dir,
    free_name,
    in_use,
    use,
)


def a_build(state_dir: Path, name: str, made: str = "2026-11-22T00:00:00") -> Build:
    build = Build(
        name=name, backend="cpu", commit="0c1e57098", version="1", flags=(),
        compiler="c++", devices=(), machine="m", source="s", jobs=1, seconds=1.0,
        made=made,
    )  # fmt: skip
    folder = engines_dir(state_dir) / name
    folder.mkdir(parents=True)
    (folder / "build.json").write_bytes(msgspec.json.encode(build))
    (folder / "llama-server").write_text(name)
    return build


def test_a_new_machine_has_no_builds(tmp_path: Path) -> None:
    assert builds(tmp_path) == []
    assert in_use(tmp_path) is None


def test_builds_are_listed_oldest_first_and_rubbish_is_not(tmp_path: Path) -> None:
    newer = a_build(tmp_path, "a", "2026-11-23")
    older = a_build(tmp_path, "b", "2026-11-22")
    (engines_dir(tmp_path) / "rubbish").mkdir()
    broken = a_build(tmp_path, "broken")
    (engines_dir(tmp_path) / broken.name / "build.json").write_text("{")
    use(tmp_path, "a")

    assert builds(tmp_path) == [older, newer]


def test_the_build_in_use_is_where_nodes_look(tmp_path: Path) -> None:
    a_build(tmp_path, "a")
    a_build(tmp_path, "b")

    for name in ("a", "b", "a"):
        use(tmp_path, name)

        assert in_use(tmp_path) == name
        server = engines_dir(tmp_path) / "current" / "llama-server"
        assert server.read_text() == name


def test_an_unknown_build_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(NoSuchBuild, match="engine build"):
        use(tmp_path, "x")
    a_build(tmp_path, "a")
    use(tmp_path, "a")

    with pytest.raises(NoSuchBuild, match="there are: a"):
        use(tmp_path, "../../etc")
    assert in_use(tmp_path) == "a"


def test_no_build_takes_anothers_name(tmp_path: Path) -> None:
    assert free_name(tmp_path, "0c1", "cpu") == "0c1-cpu"
    a_build(tmp_path, "0c1-cpu")
    a_build(tmp_path, "0c1-cpu-2")

    assert free_name(tmp_path, "0c1", "cpu") == "0c1-cpu-3"
    assert free_name(tmp_path, "0c1", "cuda") == "0c1-cuda"
