"""Limits of the fleet: kept over restarts, never a reason not to start."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from balancer.lifecycle.replicas.limits import FILE, FleetLimits, ReplicaLimits
from edgeserve.runtime.stored import NotStored


async def test_limits_outlive_the_process_until_they_are_lifted(tmp_path: Path) -> None:
    limits = FleetLimits(tmp_path)

    await limits.put("small", ReplicaLimits(min=1, max=2))
    await limits.put("big:Q8_0", ReplicaLimits(max=3))
    kept = FleetLimits(tmp_path)
    assert dict(kept.all()) == {
        "small": ReplicaLimits(min=1, max=2),
        "big:Q8_0": ReplicaLimits(max=3),
    }

    await kept.put("small", ReplicaLimits())

    left = FleetLimits(tmp_path)
    assert list(left.all()) == ["big:Q8_0"]
    assert (left.bounds("small"), left.bounds("big:Q8_0")) == ((0, None), (0, 3))


@pytest.mark.parametrize(
    "content",
    [
        '{"limits": {"a": {"min": 2, "max": 1}}}',
        '{"limits": {"a": {"max": 0}}}',
        '{"limits": [',
        "[]",
    ],
)
def test_a_damaged_file_costs_the_limits_and_is_reported(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_text(content)

    with caplog.at_level(logging.WARNING):
        limits = FleetLimits(tmp_path)

    assert not limits.all()
    assert FILE in caplog.text
    assert "edgeserve models limit" in caplog.text


async def test_limits_that_cannot_be_kept_count_until_the_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    limits = FleetLimits(tmp_path / "file")

    with pytest.raises(NotStored, match="until the balancer ends"):
        await limits.put("small", ReplicaLimits(min=1))

    assert limits.of("small").min == 1
