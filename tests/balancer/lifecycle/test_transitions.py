"""Transitions: what a change of an engine's state is told as."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from balancer.lifecycle.transitions import transitions
from tests.balancer.building import a_candidate
from tests.fakes.reports import an_engine


def changed(was: dict[str, Any], now: dict[str, Any]) -> list[tuple[str | None, str]]:
    old, new = (msgspec.structs.replace(an_engine(), **each) for each in (was, now))
    after = a_candidate(engine=new)
    return [(each.kind, each.reason) for each in transitions({after.key: old}, [after])]


@pytest.mark.parametrize(
    ("was", "reason"),
    [
        ({"state": "leaving", "reason": "it was idle"}, "it was idle"),
        ({"state": "ready", "reason": None}, ""),  # that it left was never reported
    ],
)
def test_an_unload_is_not_explained_by_how_it_could_be_loaded(
    was: dict[str, Any], reason: str
) -> None:
    now = {"state": "absent", "reason": "loads when it is asked for"}

    assert changed(was, now) == [("unloaded", reason)]
