from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edgeserve.config.settings import NodeSettings
from node.lifecycle.load_times import LoadTimes
from node.planning.plan import plan
from node.planning.planner import PlannedEngine
from node.supervision.loading import estimate
from tests.fakes.gguf import a_model
from tests.node.building import some_hardware


def planned(folder: Path) -> PlannedEngine:
    (one,) = plan(NodeSettings(models_dir=folder), some_hardware()).engines
    return one


def test_a_load_time_is_kept_for_this_file_only(tmp_path: Path) -> None:
    file = a_model(tmp_path / "a-F16.gguf")
    engine, times = planned(tmp_path), LoadTimes(tmp_path)
    guess = times.seconds(engine)
    news = times.take(engine, 7.5)
    times.save()
    again = LoadTimes(tmp_path)
    file.write_bytes(file.read_bytes() + bytes(4096))
    other = planned(tmp_path)

    assert guess == estimate(engine.load.total)
    assert news
    assert not times.take(engine, 7.6)  # not worth a write
    assert again.seconds(engine) == 7.5
    assert again.measured(engine)
    assert not again.measured(other)


@pytest.mark.parametrize("content", ["", "[1]", '{"seconds": {"a": "b"}}'])
def test_a_damaged_file_costs_the_measurements(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a_model(tmp_path / "a-F16.gguf")
    (tmp_path / "loads.json").write_text(content)
    with caplog.at_level(logging.WARNING):
        times = LoadTimes(tmp_path)

    assert not times.measured(planned(tmp_path))
    assert "loads.json" in caplog.text
