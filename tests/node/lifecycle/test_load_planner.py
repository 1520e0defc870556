from __future__ import annotations

from pathlib import Path

import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.reports.hardware import Cpu, Memory
from node.engines.bundled import bundled
from node.engines.devices import Device
from node.lifecycle.eviction import Resident
from node.lifecycle.load_planner import Loaded, LoadPlanner
from node.lifecycle.refusals import DoesNotFit
from node.models.selection import Wishes
from node.planning.plan import plan
from node.planning.planner import PlannedEngine
from node.planning.prepare import Prepared
from node.planning.tunings import Figures, Result, Tuned, save, tunings_of
from tests.fakes.gguf import Kind, Shape, a_model
from tests.node.building import some_hardware

GIB = 2**30


@pytest.fixture
def settings(tmp_path: Path) -> NodeSettings:
    for name in "ab":
        a_model(tmp_path / f"{name}-F16.gguf")
    return NodeSettings(models_dir=tmp_path, state_dir=tmp_path / "state", slots=1)


def a_planner(
    settings: NodeSettings, gpu: int, wishes: Wishes | None = None
) -> LoadPlanner:
    """A machine with much memory and a GPU of so many bytes, whose model `a` runs."""
    devices = (Device("CUDA0", "a GPU", GIB, gpu),)
    made = plan(settings, some_hardware(), devices)
    loaded = tuple(_loaded(each) for each in made.engines if each.spec.model == "a")
    return LoadPlanner(
        found=Prepared(bundled(), devices, made),
        settings=settings,
        hardware=some_hardware(),
        loaded=loaded,
        wishes=wishes or Wishes(),
    )


def _loaded(planned: PlannedEngine) -> Loaded:
    fitted = planned.fitted
    resident = Resident(
        id=planned.spec.id, memory=fitted.memory, gpu_memory=fitted.gpu_memory
    )
    return Loaded(planned=planned, resident=resident)


def other(planner: LoadPlanner) -> PlannedEngine:
    (absent,) = planner.absent()
    return absent


def on_gpu(settings: NodeSettings) -> int:
    """What the model takes on a GPU that has room for it."""
    (loaded,) = a_planner(settings, GIB).loaded
    return loaded.planned.fitted.gpu_memory


def test_an_engine_leaves_for_memory_of_the_gpu_alone(settings: NodeSettings) -> None:
    planner = a_planner(settings, int(on_gpu(settings) * 1.5))
    found = planner.load(other(planner), drain=False)

    assert found.leaving == ("a:F16",)
    assert found.planned.spec.launch.gpu_layers == -1
    assert planner.evicts([other(planner)]) == {"b:F16": ("a:F16",)}


def test_with_room_on_the_gpu_nothing_leaves(settings: NodeSettings) -> None:
    planner = a_planner(settings, on_gpu(settings) * 3)

    assert planner.load(other(planner), drain=False).leaving == ()


def test_beside_a_pinned_engine_the_processor_serves(settings: NodeSettings) -> None:
    pins = Wishes(pinned=frozenset({"a"}))
    planner = a_planner(settings, int(on_gpu(settings) * 1.5), pins)
    found = planner.load(other(planner), drain=False)

    assert found.leaving == ()
    assert found.planned.spec.launch.gpu_layers != -1


def test_where_other_programs_took_the_memory_it_is_refused(
    settings: NodeSettings,
) -> None:
    planner = a_planner(settings, GIB)
    absent = other(planner)
    empty = LoadPlanner(
        found=Prepared(bundled(), (), plan(settings, some_hardware())),
        settings=settings,
        hardware=some_hardware(memory=Memory(total=GIB, available=1)),
        loaded=(),
        wishes=Wishes(),
    )

    with pytest.raises(DoesNotFit, match="is free"):
        empty.load(absent, drain=True)


FIGURES = Figures(prefill=90.0, decode=10.0, aggregate=10.0)


def drafted(folder: Path) -> LoadPlanner:
    """A machine where a small model was tuned to draft for a large one."""
    large = a_model(folder / "large.F16.gguf", Shape(layers=8))
    a_model(folder / "small.Q4_0.gguf", kind=Kind.Q4_0)
    settings = NodeSettings(models_dir=folder, state_dir=folder / "state", slots=1)
    cpu = Cpu(model="x", physical_cores=4, logical_cores=4, load=0.0)
    hardware = some_hardware(cpu=cpu)
    here = tunings_of(bundled(), hardware, (), settings)
    result = Result(
        key=here.key("large:F16", large.stat().st_size, "generate"),
        tuned=Tuned(speculative="draft-simple", draft="small:Q4_0", draft_tokens=3),
        untuned=FIGURES,
        best=FIGURES,
        gain=0.3,
        made="2026-01-31",
    )
    save(settings.state_dir, result)
    return LoadPlanner(
        found=Prepared(bundled(), (), plan(settings, hardware)),
        settings=settings,
        hardware=hardware,
        loaded=(),
        wishes=Wishes(),
    )


@pytest.mark.parametrize("gone", [False, True])
def test_a_load_on_demand_takes_its_draft_model_along_or_says_that_it_has_gone(
    gone: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    planner = drafted(tmp_path)
    [large] = [e for e in planner.found.plan.engines if e.spec.model == "large"]
    small = tmp_path / "small.Q4_0.gguf"
    if gone:
        small.unlink()
    found = planner.load(large, drain=False).planned

    assert found.spec.draft == (None if gone else small)
    assert found.spec.launch.draft_tokens == (0 if gone else 3)
    assert ("its draft model small:Q4_0 is not here any more" in caplog.text) is gone
