"""A draft model beside the large one: its memory, its figures, and its absence."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.models.memory import kv_bytes
from edgeserve.reports.hardware import Cpu
from edgeserve.wire import Expected
from node.planning.fit import Fitted, Load, Room, fit
from node.planning.plan import Plan, plan
from node.planning.prepare import Prepared
from node.planning.report import plan_lines
from node.planning.tunings import Figures, Result, Tuned, Tunings
from tests.fakes.gguf import Kind, Shape, a_model
from tests.node.building import some_hardware
from tests.node.shapes import facts

GIB = 2**30
SMALL = "small:Q4_0"
DRAFTED = Tuned(speculative="draft-simple", draft=SMALL, draft_tokens=6)
LOAD = Load(facts=facts(4.0), drafts={SMALL: facts(0.5, layers=8)})


def fitted(room: Room, load: Load = LOAD, tuned: Tuned = DRAFTED) -> Fitted:
    found = fit(load, NodeSettings(), room, tuned)
    assert isinstance(found, Fitted)
    return found


def test_the_weights_and_the_context_of_a_draft_model_take_memory() -> None:
    room = Room(cores=4, memory=16 * GIB)
    without, drafted = fitted(room, tuned=Tuned()), fitted(room)

    assert drafted.tuned
    assert (drafted.launch.draft, drafted.launch.draft_tokens) == (SMALL, 6)
    tokens = drafted.launch.slots * drafted.launch.context
    least = GIB // 2 + kv_bytes(LOAD.drafts[SMALL], tokens)
    assert drafted.memory - without.memory >= least
    assert drafted.need.total - without.need.total == drafted.need.draft
    assert "+ draft model 8" in drafted.need.arithmetic()


def test_where_a_draft_model_does_not_fit_the_rest_of_the_tuning_still_does() -> None:
    tuned = Tuned(threads=3, speculative="draft-simple", draft=SMALL, draft_tokens=6)
    room = Room(cores=4, memory=16 * GIB)
    tight = replace(room, allowed=fitted(room, tuned=Tuned()).memory)
    found = fitted(tight, tuned=tuned)

    assert (found.launch.threads, found.launch.draft) == (3, "")
    assert found.launch.speculative == ""
    assert found.need.draft == 0


def test_on_a_gpu_a_draft_model_is_there_and_pushes_no_layer_out() -> None:
    room = Room(cores=4, memory=16 * GIB, gpu_memory=24 * GIB)
    without, drafted = fitted(room, tuned=Tuned()), fitted(room)
    full = replace(room, gpu_memory=int(without.gpu_memory / 0.9) + 2**20)

    assert drafted.gpu_memory - without.gpu_memory == drafted.need.draft
    assert drafted.memory == without.memory
    assert fitted(full, tuned=Tuned()).launch.gpu_layers == -1
    assert fitted(full).launch == fitted(full, tuned=Tuned()).launch


def test_a_draft_model_that_is_not_there_is_left_out() -> None:
    found = fitted(Room(cores=4, memory=16 * GIB), replace(LOAD, drafts={}))

    assert not found.tuned
    assert (found.launch.speculative, found.launch.draft) == ("", "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    a_model(tmp_path / "large.F16.gguf", Shape(layers=8))
    a_model(tmp_path / "small.Q4_0.gguf", kind=Kind.Q4_0)
    return tmp_path


SLOW = Figures(prefill=90.0, decode=10.0, aggregate=10.0)
FAST = Figures(prefill=90.0, decode=15.0, aggregate=15.0)


def planned(folder: Path, **settings: Any) -> Plan:
    tunings = Tunings("m", "e")
    size = (folder / "large.F16.gguf").stat().st_size
    key = tunings.key("large:F16", size, "generate")
    tunings.results[key] = Result(
        key=key, tuned=DRAFTED, untuned=SLOW, best=FAST, gain=0.4, made="2026-01-31"
    )
    given = NodeSettings(models_dir=folder, models=("large",), **settings)
    cpu = Cpu(model="x", physical_cores=4, logical_cores=4, load=0.0)
    return plan(given, some_hardware(cpu=cpu), (), tunings)


def test_a_plan_shows_the_draft_model_and_what_it_is_worth(folder: Path) -> None:
    made = planned(folder)
    [engine] = made.engines
    said = "\n".join(plan_lines(Prepared(None, (), made), some_hardware()))

    assert engine.spec.draft == folder / "small.Q4_0.gguf"
    assert engine.spec.expected == Expected(read=90, write=15)
    assert made.problems == ()
    assert "6 tokens ahead by small:Q4_0" in said
    assert "draft model" in said


def test_a_draft_model_that_has_gone_is_told_and_the_node_starts(folder: Path) -> None:
    (folder / "small.Q4_0.gguf").unlink()
    made = planned(folder)
    [engine] = made.engines

    assert engine.spec.draft is None
    assert engine.spec.launch.draft == ""
    # Without it, the engine is as slow as it was.
    assert engine.spec.expected == Expected(read=90, write=10)
    assert [problem[:60] for problem in made.problems] == [
        "large:F16: its draft model small:Q4_0 is not here any more, "
    ]


def test_another_model_of_that_name_does_not_draft(folder: Path) -> None:
    a_model(folder / "small.Q4_0.gguf", Shape(vocabulary=900), kind=Kind.Q4_0)
    made = planned(folder)

    assert made.engines[0].spec.draft is None
    assert len(made.problems) == 1
