"""A real `edgeserve engine build`: what came of it is found, serves, fits, is tuned."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from edgeserve.config.settings import NodeSettings
from edgeserve.wire import Launch
from node.commands import node
from node.engine_build.commands import engine
from node.engines.builds import builds
from node.engines.devices import ALL, devices_of, fitted
from node.engines.find import find_engine
from node.engines.native import Native
from tests.fakes.engines import a_spec, watching
from tests.native import engine_flags, native, state_dir

pytestmark = [native, pytest.mark.engine]

SMALL = Launch(slots=2, context=512, batch=128, threads=2)


@pytest.fixture
def built() -> Native:
    """Return the build, as a node without settings finds it."""
    found = find_engine(NodeSettings(state_dir=state_dir()))
    assert isinstance(found, Native)
    return found


def test_it_is_listed_as_in_use_and_known_by_what_made_it(built: Native) -> None:
    asked = ["list", "--json", "--state-dir", str(state_dir())]
    said = json.loads(CliRunner().invoke(engine, asked).stdout)

    (made,) = builds(state_dir())
    assert said["current"] == made.name
    assert built.build == made.identity
    assert made.commit in made.version


async def test_it_becomes_ready(built: Native, smollm2: Path, tmp_path: Path) -> None:
    spec = a_spec(path=smollm2, launch=SMALL)
    settings = NodeSettings(state_dir=tmp_path)
    async with watching(built, spec, settings) as (_, watched):
        report = await watched.until("ready")

    assert (report.kind, report.build) == ("native", built.build)
    assert (report.context, report.slots) == (512, 2)


def test_its_fit_tool_is_understood(built: Native, smollm2: Path) -> None:
    launch = fitted(built, a_spec(path=smollm2, launch=SMALL))

    assert launch == msgspec.structs.replace(SMALL, gpu_layers=ALL)
    assert devices_of(built) == ()


def test_it_is_tuned_within_bounds(smollm2: Path, tmp_path: Path) -> None:
    given = ["tune", str(smollm2), "--seconds", "8", "--json", *engine_flags()]
    places = ["--state-dir", str(tmp_path), "--slots", "2", "--context", "512"]
    said = CliRunner().invoke(node, [*given, *places], catch_exceptions=False)
    [result] = json.loads(said.stdout)

    assert result["untuned"]["prefill"] > result["untuned"]["decode"] > 0
    assert result["gain"] >= 0
    assert result["key"]["engine"].startswith("native")
