"""What a node says that a model can do, once its engine has said so."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.wire import Ability
from tests.fakes.engines import FakeEngine, a_spec, watching

ALL: tuple[Ability, ...] = ("chat", "completion", "tools", "vision", "audio")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--tools",), ("chat", "completion", "tools")),
        (("--no-tools",), ("chat", "completion")),
    ],
)
async def test_what_the_engine_denies_is_no_ability(
    tmp_path: Path, flags: tuple[str, ...], expected: tuple[Ability, ...]
) -> None:
    settings = NodeSettings(state_dir=tmp_path)
    spec = a_spec(abilities=ALL)
    async with watching(FakeEngine(flags), spec, settings) as (supervisor, watched):
        assert supervisor.report.abilities == ALL
        report = await watched.until("ready")

    assert report.abilities == expected
