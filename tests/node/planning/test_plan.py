from pathlib import Path
from typing import Any

import gguf
import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.models.memory import layered
from edgeserve.reports.hardware import Cpu, Hardware, Memory, Platform, Power, Thermal
from edgeserve.wire import Expected
from node.engines.devices import Device
from node.planning.fit import SHARE
from node.planning.plan import Beside, plan
from node.planning.tunings import Figures, Result, Tuned, Tunings
from tests.fakes.gguf import a_model
from tests.node.shapes import specs

GIB = 2**30
Q8_0 = gguf.GGMLQuantizationType.Q8_0


def hardware(memory: int = 4 * GIB) -> Hardware:
    return Hardware(
        platform=Platform(system="Linux", release="6", machine="x", python="3"),
        cpu=Cpu(model="x", physical_cores=4, logical_cores=4, load=0.0),
        memory=Memory(total=memory, available=memory),
        power=Power(on_mains=True),
        thermal=Thermal(),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    a_model(tmp_path / "a.F16.gguf")
    a_model(tmp_path / "a.Q8_0.gguf", kind=Q8_0)
    return tmp_path


def settings(folder: Path, **more: Any) -> NodeSettings:
    return NodeSettings(models_dir=folder, **more)


def test_without_names_everything_that_fits_is_served(folder: Path) -> None:
    made = plan(settings(folder), hardware())

    assert [spec.id for spec in specs(made)] == ["a:Q8_0", "a:F16"]
    assert made.problems == ()


@pytest.mark.parametrize(
    "name", ["a:Q8_0", "A:q8_0", "a.Q8_0", "a.Q8_0.gguf", "A.q8_0.GGUF"]
)
def test_a_model_is_named_by_file_or_variant(folder: Path, name: str) -> None:
    made = plan(settings(folder, models=(name,)), hardware())

    assert [spec.variant for spec in specs(made)] == ["a:Q8_0"]


def test_a_logical_name_means_the_best_variant_that_fits(folder: Path) -> None:
    made = plan(settings(folder, models=("a",)), hardware())

    assert [spec.variant for spec in specs(made)] == ["a:F16"]
    assert made.engines[0].chosen == "the best quality that fits"
    assert made.problems == ()


def test_where_the_best_does_not_fit_the_next_one_is_served(folder: Path) -> None:
    made = plan(settings(folder, models=("a",)), hardware(memory=77 * 2**20))

    assert [spec.variant for spec in specs(made)] == ["a:Q8_0"]
    assert made.problems == ()


def test_a_star_means_every_variant(folder: Path) -> None:
    made = plan(settings(folder, models=("a:*",)), hardware())

    assert {spec.variant for spec in specs(made)} == {"a:F16", "a:Q8_0"}


def test_a_wanted_speed_is_met_by_a_smaller_variant(folder: Path) -> None:
    speeds = {
        each.spec.variant: each.speed
        for each in plan(settings(folder), hardware()).engines
    }
    between = sum(speeds.values()) / 2
    made = plan(settings(folder, models=("a",), min_speed=between), hardware())

    assert [spec.variant for spec in specs(made)] == ["a:Q8_0"]
    assert made.problems == ()


def test_a_speed_that_nothing_reaches_is_a_problem_that_is_served(folder: Path) -> None:
    made = plan(settings(folder, models=("a",), min_speed=10**9), hardware())

    assert [spec.variant for spec in specs(made)] == ["a:Q8_0"]
    assert "of the 1e+09 tokens/s wanted" in made.problems[0]


def test_an_explicit_variant_wins_over_floors(folder: Path) -> None:
    given = settings(folder, models=("a:Q8_0",), min_quality="F16", min_speed=10**9)

    assert [spec.variant for spec in specs(plan(given, hardware()))] == ["a:Q8_0"]


def test_a_quality_that_nothing_has_is_a_problem(folder: Path) -> None:
    made = plan(settings(folder, models=("a",), min_quality="0.0001"), hardware())

    assert specs(made) == ()
    assert made.problems == ("a: none is as good as 0.0001; there is a:F16, a:Q8_0",)


def test_a_floor_holds_for_a_model_of_one_variant_too(folder: Path) -> None:
    (folder / "a.F16.gguf").unlink()
    slow = plan(settings(folder, models=("a",), min_speed=10**9), hardware())
    poor = plan(settings(folder, models=("a",), min_quality="F16"), hardware())

    assert "tokens/s wanted" in slow.problems[0]
    assert poor.problems == ("a: none is as good as F16; there is a:Q8_0",)


def test_a_floor_chooses_among_models_that_were_not_named(folder: Path) -> None:
    a_model(folder / "b.Q8_0.gguf", kind=Q8_0)

    made = plan(settings(folder, min_quality="F16"), hardware())

    assert [spec.id for spec in specs(made)] == ["a:F16"]
    assert made.problems == ("b: none is as good as F16; there is b:Q8_0",)


def test_what_was_measured_here_counts_instead_of_expectations(folder: Path) -> None:
    tunings = Tunings("m", "e")
    size = (folder / "a.F16.gguf").stat().st_size
    key = tunings.key("a:F16", size, "generate")
    figures = Figures(prefill=9.0, decode=7.0, aggregate=7.0)
    result = Result(
        key=key,
        tuned=Tuned(threads=3),
        untuned=figures,
        best=figures,
        gain=0.1,
        made="2026-01-31T10:00:00",
    )
    tunings.results[key] = result

    alone = plan(settings(folder, models=("a:F16",)), hardware(), (), tunings)
    given = settings(folder, models=("a",), min_speed=20)
    chosen = plan(given, hardware(), (), tunings)

    assert alone.engines[0].speed == 7.0
    assert alone.engines[0].spec.launch.threads == 3
    # The balancer hears of it before it has asked anything.
    assert alone.engines[0].spec.expected == Expected(read=9.0, write=7.0)
    assert alone.engines[0].tuning == result
    # Its sibling is expected to be as far off as it was.
    assert [spec.variant for spec in specs(chosen)] == ["a:Q8_0"]
    assert 7.0 < chosen.engines[0].speed < 20.0


def test_a_projector_counts_as_weights(folder: Path) -> None:
    (folder / "mmproj-a.gguf").write_bytes(b"GGUF" + bytes(2**20))
    bare = plan(
        settings(folder, models=("a:F16",), embedding_models=("a:F16",)), hardware()
    )
    seeing, reading = bare.engines

    assert seeing.fitted.need.weights == reading.fitted.need.weights + 2**20 + 4


def test_a_file_outside_the_folder_is_named_by_path(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = a_model(tmp_path_factory.mktemp("x") / "b.F16.gguf")
    made = plan(settings(folder, models=(str(elsewhere),)), hardware())

    assert [spec.path for spec in specs(made)] == [elsewhere]


def test_one_file_can_generate_and_embed_in_two_engines(folder: Path) -> None:
    given = settings(folder, models=("a:F16",), embedding_models=("a:F16",))
    made = plan(given, hardware())

    assert [spec.id for spec in specs(made)] == ["a:F16", "a:F16#embeddings"]
    assert [spec.abilities for spec in specs(made)] == [
        ("chat", "completion", "tools"),
        ("embeddings",),
    ]
    assert [spec.pooling for spec in specs(made)] == [None, "mean"]


def test_an_unknown_name_is_a_problem_that_lists_what_is_there(folder: Path) -> None:
    made = plan(settings(folder, models=("b", "a:F16")), hardware())

    assert [spec.id for spec in specs(made)] == ["a:F16"]
    assert "'b'" in made.problems[0]
    assert "a:F16" in made.problems[0]


def test_what_is_broken_or_too_large_is_a_problem_and_the_rest_is_served(
    folder: Path,
) -> None:
    whole = (folder / "a.F16.gguf").read_bytes()
    (folder / "cut.gguf").write_bytes(whole[: len(whole) // 2])

    made = plan(settings(folder), hardware(memory=90 * 2**20))

    assert [spec.id for spec in specs(made)] == ["a:Q8_0"]
    assert any("cut short" in problem for problem in made.problems)
    assert [each.spec.id for each in made.absent] == ["a:F16"]


def test_without_on_demand_what_does_not_fit_is_a_problem(folder: Path) -> None:
    given = settings(folder, on_demand=False)
    made = plan(given, hardware(memory=90 * 2**20))

    assert [spec.id for spec in specs(made)] == ["a:Q8_0"]
    assert [each.variant for each in made.available] == ["a:F16"]
    assert any("weights" in problem for problem in made.problems)


def test_two_files_of_one_name_do_not_become_one_engine(folder: Path) -> None:
    (folder / "sub").mkdir()
    a_model(folder / "sub" / "A.f16.gguf")
    made = plan(settings(folder), hardware())

    assert [spec.id for spec in specs(made)].count("a:F16") == 1
    assert any("same name" in problem for problem in made.problems)


def test_naming_a_model_twice_is_once(folder: Path) -> None:
    made = plan(settings(folder, models=("a:F16", "a.F16.gguf")), hardware())

    assert len(specs(made)) == 1
    assert made.problems == ()


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    made = plan(settings(tmp_path), hardware())

    assert specs(made) == ()
    assert "edgeserve pull" in made.problems[0]


def test_an_unreadable_folder_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    made = plan(settings(file), hardware())

    assert "cannot read the models folder" in made.problems[0]


GPUS = tuple(Device(f"CUDA{n}", "a GPU", 8 * GIB, 8 * GIB) for n in range(2))


def test_one_engine_spans_all_gpus(folder: Path) -> None:
    made = plan(settings(folder, models=("a:F16",)), hardware(), GPUS)

    assert [(s.id, s.launch.devices) for s in specs(made)] == [("a:F16", ())]
    assert specs(made)[0].launch.gpu_layers == -1


def test_or_each_gpu_has_an_engine_of_its_own(folder: Path) -> None:
    made = plan(settings(folder, models=("a:F16",), per_gpu=True), hardware(), GPUS)

    assert [(s.id, s.launch.devices) for s in specs(made)] == [
        ("a:F16@CUDA0", ("CUDA0",)),
        ("a:F16@CUDA1", ("CUDA1",)),
    ]
    assert {s.variant for s in specs(made)} == {"a:F16"}


def test_without_a_gpu_one_each_is_just_one(folder: Path) -> None:
    made = plan(settings(folder, models=("a:F16",), per_gpu=True), hardware())

    assert [s.id for s in specs(made)] == ["a:F16"]


def test_what_runs_stays_as_it_is_beside_a_model_that_arrives(folder: Path) -> None:
    a_model(folder / "b.F16.gguf")
    running = plan(settings(folder, models=("a",)), hardware()).engines

    made = plan(settings(folder), hardware(), shelf=Beside(running))

    assert made.engines[0] is running[0]
    assert {spec.id for spec in specs(made)} == {"a:F16", "a:Q8_0", "b:F16"}


def test_a_better_variant_that_arrives_does_not_replace_the_one_that_runs(
    folder: Path,
) -> None:
    named = settings(folder, models=("a",))
    (folder / "a.F16.gguf").rename(folder / "a.F16.later")
    running = plan(named, hardware()).engines
    (folder / "a.F16.later").rename(folder / "a.F16.gguf")

    made = plan(named, hardware(), shelf=Beside(running))

    assert [spec.id for spec in specs(made)] == ["a:Q8_0"]
    assert [each.spec.id for each in made.absent] == ["a:F16"]


def test_what_runs_keeps_its_memory(folder: Path) -> None:
    named = settings(folder, models=("a:F16",))
    running = plan(named, hardware()).engines
    little = int(running[0].fitted.memory / SHARE) + 1

    made = plan(settings(folder), hardware(little), shelf=Beside(running))

    assert made.engines == running
    assert [each.variant for each in made.available] == ["a:Q8_0"]
    assert "is free" in made.available[0].reason


def test_a_model_that_is_too_large_tells_what_a_group_has_to_know(
    folder: Path,
) -> None:
    made = plan(settings(folder, models=("a:F16",)), hardware(2**20))
    (refused,) = (each for each in made.available if each.variant == "a:F16")
    facts = next(each.facts for each in made.models if each.variant == "a:F16")

    assert refused.layered == layered(facts)


def test_a_named_file_that_is_still_written_is_a_problem(folder: Path) -> None:
    file = folder / "a.F16.gguf"
    named = settings(folder, models=(str(file),))

    made = plan(named, hardware(), shelf=Beside(arriving=frozenset({file})))

    assert specs(made) == ()
    assert "still being written" in made.problems[0]


def test_engines_together_take_no_more_memory_than_the_settings_allow(
    folder: Path,
) -> None:
    both = plan(settings(folder), hardware())
    needs = [each.fitted.memory for each in both.engines]
    enough = -(-sum(needs) // 2**20)

    made = plan(settings(folder, memory_mib=enough), hardware())
    tight = plan(settings(folder, memory_mib=enough - 1, context=512), hardware())
    none = plan(settings(folder, memory_mib=1), hardware())

    assert [spec.id for spec in specs(made)] == ["a:Q8_0", "a:F16"]
    assert sum(each.fitted.memory for each in tight.engines) <= (enough - 1) * 2**20
    assert not none.engines
    assert "`memory_mib` leaves 1 MiB" in " ".join(none.problems)


def test_with_a_floor_only_the_chosen_variant_is_served_or_absent(folder: Path) -> None:
    a_model(folder / "b.F16.gguf")
    a_model(folder / "b.Q8_0.gguf", kind=Q8_0)
    given = settings(folder, models=("a:Q8_0",), min_quality="Q8_0")

    made = plan(given, hardware())

    assert [spec.id for spec in specs(made)] == ["a:Q8_0"]
    assert [each.spec.id for each in made.absent] == ["b:Q8_0"]
    assert {each.variant for each in made.available} == {"a:F16", "b:F16"}


def test_an_absent_engine_is_fitted_beside_what_runs_where_it_fits_whole(
    folder: Path,
) -> None:
    needs = [each.fitted.memory for each in plan(settings(folder), hardware()).engines]
    for_both, for_one = (int(n / SHARE) + 1 for n in (sum(needs), max(needs)))

    one = plan(settings(folder, models=("a:Q8_0",)), hardware(for_both))
    other = plan(settings(folder), hardware(for_one))

    assert [spec.id for spec in specs(one)] == ["a:Q8_0"]
    assert [spec.id for spec in specs(other)] == ["a:Q8_0"]
    # Here it runs beside the other one, there in its place.
    assert [each.room.memory for each in one.absent] == [for_both - needs[0]]
    assert [each.room.memory for each in other.absent] == [for_one]


def test_what_rests_does_not_start_by_itself(folder: Path) -> None:
    resting = Beside(resting=frozenset({"a:F16"}))

    unnamed = plan(settings(folder), hardware(), shelf=resting)
    named = plan(settings(folder, models=("a:F16",)), hardware(), shelf=resting)

    assert [spec.id for spec in specs(unnamed)] == ["a:Q8_0"]
    assert [each.spec.id for each in unnamed.absent] == ["a:F16"]
    assert [spec.id for spec in specs(named)] == ["a:F16"]
