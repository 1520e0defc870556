import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from edgeserve.cli.config import EXAMPLES, example_file
from edgeserve.config.settings import BalancerSettings, NodeSettings, SharedSettings
from edgeserve.config.sources import resolve

FILE = Path(__file__).parents[2] / "deploy" / "example.toml"


def uncommented() -> str:
    text = FILE.read_text()
    return re.sub(r"^#(\w+ = |\[\[)", r"\1", text, flags=re.MULTILINE)


def test_the_example_is_what_the_settings_say() -> None:
    assert FILE.read_text() == example_file(), (
        "the settings have changed: edgeserve config example >deploy/example.toml"
    )


def test_as_it_is_the_example_changes_nothing() -> None:
    assert resolve(NodeSettings, file=FILE, environ={}).settings == NodeSettings()


@pytest.mark.parametrize("shape", [NodeSettings, BalancerSettings])
def test_every_setting_is_shown_with_its_default(
    shape: type[SharedSettings], tmp_path: Path
) -> None:
    file = tmp_path / "edgeserve.toml"
    file.write_text(uncommented())

    found = resolve(shape, file=file, environ={})

    names = {each.name for each in dataclasses.fields(shape)}
    assert {name for name in names if found.origins[name] == "default"} == set()
    for name in names - set(EXAMPLES) - {"routes", "server_tables", "adopt_tables"}:
        assert getattr(found.settings, name) == getattr(shape(), name)


def test_no_example_stands_for_a_setting_that_is_gone() -> None:
    shapes = (NodeSettings, BalancerSettings)
    names = {each.name for shape in shapes for each in dataclasses.fields(shape)}

    assert set(EXAMPLES) <= names


def test_shared_settings_stand_above_the_sections() -> None:
    table = tomllib.loads(uncommented())

    shared = {each.name for each in dataclasses.fields(SharedSettings)}
    assert set(table) == shared | {"node", "balancer", "route", "server", "adopt"}
    assert not shared & (set(table["node"]) | set(table["balancer"]))
