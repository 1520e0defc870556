"""The catalog: each model once, with the best state that any node gives it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from balancer.fleet.catalog import catalog, entries
from balancer.fleet.engines import candidates
from edgeserve.wire import EngineReport
from tests.balancer.building import a_candidate, a_fleet, changed
from tests.fakes.reports import a_report, an_engine


def engine(variant: str = "small:Q4_1", **fields: Any) -> EngineReport:
    facts = {key: fields.pop(key) for key in FACTS if key in fields}
    return msgspec.structs.replace(an_engine(variant, **fields), **facts)


FACTS = ("memory", "created", "progress", "load_seconds", "pinned")


def listed(**engines: EngineReport) -> list[Any]:
    reports = [
        each
        for name, engine in engines.items()
        for each in candidates(a_fleet(name, report=a_report(engine, name=name)))
    ]
    return catalog(reports)


def test_each_model_is_listed_once_with_its_variants_and_nodes() -> None:
    wide = an_engine("small:Q8_0", slots=4, context=8192)

    (small,) = catalog([a_candidate("pi"), a_candidate("nuc", wide)])

    shape = (small.name, small.nodes, small.context, small.slots)
    assert shape == ("small", ("nuc", "pi"), 8192, 6)
    assert [(v.name, v.nodes, v.context, v.slots) for v in small.variants] == [
        ("small:Q4_1", ("pi",), 4096, 2),
        ("small:Q8_0", ("nuc",), 8192, 4),
    ]
    assert [each.name for each in entries([small])] == [
        "small",
        "small:Q4_1",
        "small:Q8_0",
    ]


def test_the_best_state_of_any_node_is_the_models() -> None:
    absent = engine(state="absent", context=9999)

    (loaded,) = listed(pi=absent, nuc=engine())
    (loading,) = listed(
        pi=absent,
        nuc=engine(state="loading", progress=0.2),
        box=engine(state="loading", progress=0.7),
    )
    (available,) = listed(pi=absent, nuc=engine(state="leaving"))

    assert (loaded.state, loaded.nodes, loaded.on_demand) == (
        "loaded",
        ("nuc",),
        ("pi",),
    )
    assert loaded.context == 4096
    assert loaded.progress is None
    assert (loading.state, loading.progress, loading.nodes) == ("loading", 0.7, ())
    assert (available.state, available.on_demand) == ("available", ("nuc", "pi"))


@pytest.mark.parametrize("state", ["failed", "quarantined", "stuck"])
def test_what_cannot_be_called_is_not_listed(state: Any) -> None:
    assert listed(pi=engine(state=state)) == []


@pytest.mark.parametrize("state", ["ready", "absent"])
def test_a_node_that_shuts_down_neither_serves_nor_loads(state: Any) -> None:
    report = changed(a_report(engine(state=state), name="pi"), state="draining")

    assert catalog(candidates(a_fleet("pi", report=report))) == []


def test_it_is_as_new_as_its_newest_file() -> None:
    (small,) = listed(
        pi=engine(created=5, memory=7), nuc=engine("small:Q8_0", created=9, memory=3)
    )

    assert (small.created, small.memory) == (9, 7)
    assert [each.created for each in small.variants] == [5, 9]
