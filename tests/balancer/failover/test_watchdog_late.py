"""A request is asked elsewhere only where it is late and another engine is sooner."""

from __future__ import annotations

import pytest

from balancer.failover.stall import is_sooner, may_be_late


@pytest.mark.parametrize(("now", "late"), [(104, False), (108, False), (108.1, True)])
def test_late_is_half_again_as_long_as_predicted_and_two_seconds(
    now: float, late: bool
) -> None:
    assert may_be_late(100, 4, now) is late


@pytest.mark.parametrize(
    ("elsewhere", "sooner"), [(None, False), (7.1, False), (7.0, True), (0.1, True)]
)
def test_the_other_engine_has_to_be_a_third_sooner(
    elsewhere: float | None, sooner: bool
) -> None:
    assert is_sooner(elsewhere, 10.0) is sooner
