from pathlib import Path
from typing import Any

import gguf
import pytest

from edgeserve.config import NodeSettings
from edgeserve.wire import Cpu, Hardware, Memory, Platform, Power, Thermal
from node.offload import Device
from node.specs import plan
from tests.fakes.gguf import a_model

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

    assert [spec.id for spec in made.specs] == ["a:Q8_0", "a:F16"]
    assert made.problems == ()


@pytest.mark.parametrize("name", ["a:Q8_0", "A:q8_0", "a.Q8_0", "a.Q8_0.gguf"])
def test_a_model_is_named_by_file_or_variant(folder: Path, name: str) -> None:
    made = plan(settings(folder, models=(name,)), hardware())

    assert [spec.variant for spec in made.specs] == ["a:Q8_0"]


def test_a_logical_name_means_every_variant(folder: Path) -> None:
    made = plan(settings(folder, models=("a",)), hardware())

    assert {spec.variant for spec in made.specs} == {"a:F16", "a:Q8_0"}


def test_a_file_outside_the_folder_is_named_by_path(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = a_model(tmp_path_factory.mktemp("x") / "b.F16.gguf")
    made = plan(settings(folder, models=(str(elsewhere),)), hardware())

    assert [spec.path for spec in made.specs] == [elsewhere]


def test_one_file_can_generate_and_embed_in_two_engines(folder: Path) -> None:
    given = settings(folder, models=("a:F16",), embedding_models=("a:F16",))
    made = plan(given, hardware())

    assert [spec.id for spec in made.specs] == ["a:F16", "a:F16#embeddings"]
    assert [spec.abilities for spec in made.specs] == [
        ("chat", "completion"),
        ("embeddings",),
    ]
    assert [spec.pooling for spec in made.specs] == [None, "mean"]


def test_an_unknown_name_is_a_problem_that_lists_what_is_there(folder: Path) -> None:
    made = plan(settings(folder, models=("b", "a:F16")), hardware())

    assert [spec.id for spec in made.specs] == ["a:F16"]
    assert "'b'" in made.problems[0]
    assert "a:F16" in made.problems[0]


def test_what_is_broken_or_too_large_is_a_problem_and_the_rest_is_served(
    folder: Path,
) -> None:
    whole = (folder / "a.F16.gguf").read_bytes()
    (folder / "cut.gguf").write_bytes(whole[: len(whole) // 2])

    made = plan(settings(folder), hardware(memory=90 * 2**20))

    assert [spec.id for spec in made.specs] == ["a:Q8_0"]
    assert any("cut short" in problem for problem in made.problems)
    assert any("weights" in problem for problem in made.problems)


def test_two_files_of_one_name_do_not_become_one_engine(folder: Path) -> None:
    (folder / "sub").mkdir()
    a_model(folder / "sub" / "A.f16.gguf")
    made = plan(settings(folder), hardware())

    assert [spec.id for spec in made.specs].count("a:F16") == 1
    assert any("same name" in problem for problem in made.problems)


def test_naming_a_model_twice_is_once(folder: Path) -> None:
    made = plan(settings(folder, models=("a:F16", "a.F16.gguf")), hardware())

    assert len(made.specs) == 1
    assert made.problems == ()


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    made = plan(settings(tmp_path), hardware())

    assert made.specs == ()
    assert "edgeserve pull" in made.problems[0]


def test_an_unreadable_folder_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    made = plan(settings(file), hardware())

    assert "cannot read the models folder" in made.problems[0]


GPUS = tuple(Device(f"CUDA{n}", "a GPU", 8 * GIB, 8 * GIB) for n in range(2))


def test_one_engine_spans_all_gpus(folder: Path) -> None:
    made = plan(settings(folder, models=("a:F16",)), hardware(), GPUS)

    assert [(s.id, s.launch.devices) for s in made.specs] == [("a:F16", ())]
    assert made.specs[0].launch.gpu_layers == -1


def test_or_each_gpu_has_an_engine_of_its_own(folder: Path) -> None:
    made = plan(settings(folder, models=("a:F16",), per_gpu=True), hardware(), GPUS)

    assert [(s.id, s.launch.devices) for s in made.specs] == [
        ("a:F16@CUDA0", ("CUDA0",)),
        ("a:F16@CUDA1", ("CUDA1",)),
    ]
    assert {s.variant for s in made.specs} == {"a:F16"}


def test_without_a_gpu_one_each_is_just_one(folder: Path) -> None:
    made = plan(settings(folder, models=("a:F16",), per_gpu=True), hardware())

    assert [s.id for s in made.specs] == ["a:F16"]
