from __future__ import annotations

from typing import Any

import msgspec

from edgeserve.cli.nodes.table import node_rows
from tests.fakes.reports import a_report, an_engine


def a_row(**fields: Any) -> dict[str, Any]:
    report = msgspec.to_builtins(a_report(an_engine("small:Q4_1"), name="pi"))
    usual: dict[str, Any] = {
        "id": "1",
        "name": "pi",
        "state": "up",
        "url": "http://pi:8090",
    }
    return {**usual, "report": report, "problem": None, **fields}


def test_a_machine_that_sleeps_shows_what_would_wake_it() -> None:
    (row,) = node_rows([a_row(state="asleep")])

    assert row.cells[:2] == ("pi", "asleep")
    assert row.below == [
        "on demand: small:Q4_1",
        "sleeps; a request that needs it wakes it",
    ]


def test_a_machine_that_cannot_be_woken_shows_why() -> None:
    (row,) = node_rows([a_row(state="asleep", problem="it did not come up")])

    assert row.below[1:] == ["it did not come up"]


def test_joules_are_shown_where_they_were_measured() -> None:
    learned = {"read": 0.0213, "write": 0.5, "measured": True}
    guessed = learned | {"measured": False}
    (row,) = node_rows([a_row(joules={"small:Q4_1": learned})])
    (other,) = node_rows([a_row(joules={"small:Q4_1": guessed})])

    assert "; 0.5 J to write a token, 0.021 to read" in row.below[0]
    assert " J " not in other.below[0]
