"""What a node starts with after a crash, or after a tuning that did not start."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import EngineUnavailable
from edgeserve.wire import Launch
from node.engines import find
from node.engines.bundled import Bundled
from node.planning.planner import PlannedEngine
from node.planning.prepare import (
    FallbackEngines,
    Prepared,
    fallbacks_of,
    prepared,
    room_beside,
)
from node.planning.report import plan_json, plan_lines
from node.planning.tunings import Figures, Result, Tuned, save, tunings_of
from tests.fakes.gguf import a_model
from tests.node.building import some_hardware

HARDWARE = some_hardware()
BUNDLED = Bundled("b1")
SLOW, FAST = (
    Figures(prefill=100.0, decode=speed, aggregate=20.0) for speed in (10.0, 15.0)
)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with both engines and two models."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(find, "bundled", lambda: BUNDLED)
    monkeypatch.setattr("node.planning.prepare.bundled", lambda: BUNDLED)
    (tmp_path / "models").mkdir()
    a_model(tmp_path / "models" / "a.F16.gguf")
    a_model(tmp_path / "models" / "b.Q8_0.gguf", kind=gguf.GGMLQuantizationType.Q8_0)
    server = tmp_path / "bin" / "llama-server"
    server.parent.mkdir()
    server.write_text("#!/bin/sh\necho 'version: 7 (beef123)'\n")
    server.chmod(0o755)
    return tmp_path


def settings(machine: Path, **more: Any) -> NodeSettings:
    return NodeSettings(
        models_dir=machine / "models", state_dir=machine / "state", **more
    )


def plan_of(found: Prepared, variant: str) -> PlannedEngine:
    [planned] = [each for each in found.plan.engines if each.spec.variant == variant]
    return planned


def replaced(found: Prepared) -> list[PlannedEngine]:
    return [each for each in found.plan.engines if each.engine or each.instead]


def ways(machine: Path, variant: str = "a:F16", **more: Any) -> FallbackEngines:
    found = prepared(settings(machine, **more), HARDWARE)
    return fallbacks_of(
        found, plan_of(found, variant), settings(machine, **more), HARDWARE
    )


def test_the_next_start_leaves_alone_what_llama_server_crashed_with(
    machine: Path,
) -> None:
    note = ways(machine).crashed("killed by SIGSEGV")
    found = prepared(settings(machine), HARDWARE)

    assert found.engine_of(plan_of(found, "a:F16")) == BUNDLED
    assert found.engine_of(plan_of(found, "b:Q8_0")).kind == "native"
    assert plan_of(found, "a:F16").instead == note
    assert note is not None
    assert note in "\n".join(plan_lines(found, HARDWARE))
    assert '"instead": "served by' in plan_json(found, HARDWARE)


def test_a_new_build_is_tried_again(machine: Path) -> None:
    ways(machine).crashed("killed by SIGSEGV")
    with (machine / "bin" / "llama-server").open("a") as server:
        server.write("# mended\n")

    assert not replaced(prepared(settings(machine), HARDWARE))


@pytest.mark.parametrize("name", ["engine", "llama_server"])
def test_a_named_llama_server_is_used_whatever_crashed(
    machine: Path, name: str
) -> None:
    values: dict[str, Any] = {"engine": "native"}
    values["llama_server"] = machine / "bin" / "llama-server"
    said: dict[str, Any] = {name: values[name]}
    ways(machine).crashed("killed by SIGSEGV")

    found = prepared(settings(machine, **said), HARDWARE)

    assert not replaced(found)
    assert not ways(machine, **said).falls_back


def test_the_bundled_engine_has_nothing_to_fall_back_to(machine: Path) -> None:
    assert not ways(machine, engine="bundled").falls_back


def test_without_a_bundled_engine_llama_server_is_tried_again(
    machine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ways(machine).crashed("killed by SIGSEGV")

    def none() -> Bundled:
        raise EngineUnavailable("no bundled engine for Plan9")

    monkeypatch.setattr("node.planning.prepare.bundled", none)
    found = prepared(settings(machine), HARDWARE)

    assert not replaced(found)
    assert "Plan9" in caplog.text


def test_what_was_on_a_gpu_is_fitted_into_main_memory(machine: Path) -> None:
    on_gpu = ways(machine)
    launch = Launch(slots=4, context=512, batch=64, threads=4, gpu_layers=-1)
    spec = replace(on_gpu.planned.spec, launch=launch)
    on_gpu = replace(on_gpu, planned=replace(on_gpu.planned, spec=spec))

    engine, planned = on_gpu.bundled()

    assert engine == BUNDLED
    assert planned.spec.launch.gpu_layers == 0
    assert planned.fitted.memory == planned.fitted.need.total
    assert planned.spec.id == spec.id


def test_a_model_too_large_for_main_memory_stays_where_it_is(machine: Path) -> None:
    tight = ways(machine)
    tight = replace(tight, room=replace(tight.room, memory=2**20))

    with pytest.raises(
        EngineUnavailable, match="bundled engine cannot serve it: needs"
    ):
        tight.bundled()


def tuned(machine: Path, **changes: Any) -> Result:
    found = prepared(settings(machine), HARDWARE)
    assert found.engine is not None
    here = tunings_of(found.engine, HARDWARE, (), settings(machine))
    planned = plan_of(found, "a:F16")
    key = here.key("a:F16", planned.load.facts.file_bytes, "generate")
    result = Result(
        key=key, tuned=Tuned(threads=3), untuned=SLOW, best=FAST, gain=0.2,
        made="2026-01-31T10:00:00+00:00", **changes,
    )  # fmt: skip
    save(machine / "state", result)
    return result


def test_tuned_settings_that_did_not_start_are_not_used_again(machine: Path) -> None:
    tuned(machine)
    before = ways(machine)
    assert before.is_tuned
    assert before.planned.spec.launch.threads == 3

    before.tuning_failed("killed by SIGSEGV")
    after = ways(machine)

    assert not after.is_tuned
    assert after.planned.spec.launch == before.untuned().launch  # type: ignore[union-attr]  # it fits
    assert after.planned.speed == SLOW.decode
    assert after.planned.tuning is not None
    assert "did not start: killed by SIGSEGV" in after.planned.tuning.summary


def test_tuning_again_gives_tuned_settings_another_chance(machine: Path) -> None:
    tuned(machine, failed="killed by SIGSEGV")
    tuned(machine)

    assert ways(machine).is_tuned


def test_what_later_engines_take_is_left_to_them(machine: Path) -> None:
    engines = prepared(settings(machine), HARDWARE).plan.engines
    first, last = engines

    assert room_beside(last, engines) == last.room
    assert room_beside(first, engines).memory == (
        first.room.memory - last.fitted.memory
    )
