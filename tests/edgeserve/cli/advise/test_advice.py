from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edgeserve.cli.advise import advice
from edgeserve.cli.advise.arithmetic import layers, sentences
from edgeserve.cli.advise.choice import (
    CHAT,
    AdvisedModel,
    CandidateModel,
    Purpose,
    candidates_for,
    place,
    ranked,
    typical_candidate,
)
from edgeserve.cli.advise.machine import AdvisedMachine, as_if_built
from edgeserve.cli.advise.question import UnknownQuestion, asked
from edgeserve.cli.advise.report import as_json, command, engine
from edgeserve.cli.advise.typical import TypicalModel, of_size, parameters
from edgeserve.config.settings import NodeSettings
from edgeserve.models.synthetic import Shape, a_model
from node.engines.devices import Device
from node.models.library import look
from node.planning.plan import plan
from tests.edgeserve.cli.advise.machines import GIB, H200, LAPTOP, PC, PI5, TWO
from tests.edgeserve.cli.advise.machines import a_machine as machine_of
from tests.fakes.commands import problems

LLAMA_7B = TypicalModel(
    name="llama-7b", labels=("Q4_K_M",), layers=32, embedding=4096,
    feed_forward=11008, heads=32, kv_heads=32, vocabulary=32000, context=4096,
)  # fmt: skip
LLAMA_13B = replace(
    LLAMA_7B, layers=40, embedding=5120, feed_forward=13824, heads=40, kv_heads=40
)
SMOLLM2 = "smollm2-135m-instruct"
EPYC = machine_of("AMD EPYC 9654", 16, 200)
H100 = machine_of("AMD EPYC 9654", 16, 200, gpu="NVIDIA H100 80GB HBM3", gpu_gib=79)


def placed(
    candidate: CandidateModel, machine: AdvisedMachine, purpose: Purpose = CHAT
) -> AdvisedModel:
    found = place(candidate, purpose, machine)
    assert isinstance(found, AdvisedModel), found
    return found


@pytest.mark.parametrize(
    ("machine", "chat", "coding", "on_gpu"),
    [
        (PI5, "qwen2.5-1.5b-instruct:Q5_K_M", "qwen2.5-coder-0.5b", "none"),
        (LAPTOP, "qwen3-30b-a3b:Q6_K", "qwen2.5-coder-1.5b", "none"),
        (PC, "qwen2.5-14b-instruct:Q5_K_M", "qwen2.5-coder-14b", "all"),
        (H200, "qwen2.5-72b-instruct:Q8_0", "qwen2.5-coder-32b", "all"),
        (TWO, "qwen2.5-32b-instruct:Q8_0", "qwen2.5-coder-32b", "all"),
    ],
    ids=["Pi 5", "laptop", "PC with 12 GB GPU", "H200", "two GPUs"],
)
def test_each_machine_gets_the_ablest_model_that_is_quick_enough(
    machine: AdvisedMachine, chat: str, coding: str, on_gpu: str
) -> None:
    found = advice.advise(machine)

    best = {each.purpose.use: each for each in found.models}
    assert best["chat"].model.variant == chat
    assert layers(best["chat"]) == on_gpu
    assert best["coding"].model.model.startswith(coding)
    assert best["embeddings"].model.role == "embeddings"
    assert best["chat"].write >= CHAT.speed


@pytest.mark.parametrize(
    ("machine", "builds"),
    [(PI5, True), (LAPTOP, False), (PC, True), (H200, True), (TWO, True)],
)
def test_an_engine_is_built_where_that_pays(
    machine: AdvisedMachine, builds: bool
) -> None:
    (best, *_) = advice.advise(machine).models

    assert command(best, machine).startswith("edgeserve engine build") == builds


@pytest.mark.parametrize("machine", [PI5, LAPTOP, PC, H200, TWO])
@pytest.mark.parametrize("card", [0.0, 0.05, 0.1, 1.0])
def test_the_advised_offload_is_what_the_node_does(
    machine: AdvisedMachine, card: float, tmp_path: Path
) -> None:
    path = a_model(tmp_path / "m.F16.gguf", Shape(layers=8, embedding=512))
    devices = tuple(
        Device(each.name, each.description, int(card * GIB), int(card * GIB))
        for each in machine.devices
    )
    machine = replace(machine, devices=devices)
    model = look(path)
    settings = NodeSettings(models=(str(path),), models_dir=tmp_path)

    (node,) = plan(settings, machine.hardware, devices).engines
    candidate = CandidateModel(name="m", variants=(model,), here=True)  # type: ignore[arg-type] # it is one
    advised = placed(candidate, machine)

    assert advised.planned.spec == node.spec
    assert advised.planned.fitted == node.fitted


@pytest.mark.parametrize(
    ("model", "machine", "gpu_layers", "write", "read"),
    [
        (LLAMA_7B, EPYC, "auto", 11.4, 87),
        (LLAMA_7B, H100, "8", 13.2, 898),
        (LLAMA_7B, H100, "16", 19.7, 1212),
        (LLAMA_7B, H100, "24", 38.4, 2093),
        (LLAMA_7B, H100, "auto", 274, 10118),
        (LLAMA_13B, H100, "auto", 156, None),
        (SMOLLM2, machine_of("Intel Xeon", 2, 16), "auto", 59.2, 516),
    ],
)
def test_the_arithmetic_is_near_what_was_measured(
    model: TypicalModel | str,
    machine: AdvisedMachine,
    gpu_layers: str,
    write: float,
    read: float | None,
) -> None:
    if isinstance(model, str):
        candidate, _ = asked(model, ())
    else:
        candidate = typical_candidate(model)
    settings = NodeSettings(gpu_layers=gpu_layers)

    found = placed(candidate, replace(machine, settings=settings))

    assert 1 / 1.5 < found.write / write < 1.5
    assert read is None or 1 / 1.5 < found.read / read < 1.5


def test_a_speed_that_the_arithmetic_exaggerates_is_called_an_upper_bound() -> None:
    """An H100 wrote 710 tokens/s of SmolLM2, a nineteenth of what this expects."""
    small, large = (advice.explain(*asked(each, ()), H100) for each in (SMOLLM2, "14b"))

    assert small.models[0].write > 10 * 710
    assert any("is an upper bound" in note for note in small.notes)
    assert not any("is an upper bound" in note for note in large.notes)


def test_the_arithmetic_that_is_shown_gives_the_figures() -> None:
    candidate, purpose = asked("14b:Q4", ())
    found = placed(candidate, PC, purpose)

    told = dict(sentences(found))
    assert found.planned.spec.launch.gpu_layers == -1
    assert "8.54 GB of weights, from the GPU's memory at 250 GB/s" in told["writes"]
    assert found.write == pytest.approx(found.terms.gpu / found.terms.bytes)
    assert found.first == pytest.approx(512 / found.read + 1 / found.write)
    assert "1.5" in told["memory"]
    assert "all 49 layers" in told["offload"]


def test_a_model_that_is_too_large_for_the_gpu_is_advised_with_a_part_there() -> None:
    candidate, purpose = asked("32b:Q4", ())

    found = placed(candidate, PC, purpose)

    assert 0 < found.planned.spec.launch.gpu_layers < 64
    assert not found.meets
    text = dict(sentences(found))["writes"]
    assert "from the GPU's memory" in text
    assert "from main memory" in text


def test_a_poor_variant_is_advised_only_where_no_better_one_fits() -> None:
    slow, _ = asked("13b", ())
    large, _ = asked("14b", ())
    tight = machine_of("Intel", 12, 8)

    assert placed(slow, PI5).model.label in {"Q2_K", "Q3_K_M"}
    assert placed(slow, LAPTOP).model.label == "Q4_K_M"
    assert placed(large, tight).model.label == "Q2_K"


def test_a_small_gpu_of_a_processor_changes_nothing() -> None:
    cpu = "AMD Ryzen 7 7840U"
    with_gpu = machine_of(cpu, 8, 31, gpu="AMD GPU", gpu_gib=0.5)

    found = advice.advise(with_gpu).models[0]

    same = advice.advise(machine_of(cpu, 8, 31)).models[0]
    assert found.model.variant == same.model.variant
    assert not with_gpu.builds
    assert found.meets


def test_a_mac_is_advised_to_build_for_its_gpu() -> None:
    system = msgspec.structs.replace(LAPTOP.hardware.platform, system="Darwin")
    hardware = msgspec.structs.replace(LAPTOP.hardware, platform=system)
    mac = as_if_built(replace(LAPTOP, hardware=hardware))

    (found, *_) = advice.advise(mac).models

    assert layers(found) == "all"
    assert command(found, mac).startswith("edgeserve engine build && ")


def test_a_machine_without_a_working_engine_is_advised_to_build_one() -> None:
    machine = as_if_built(replace(LAPTOP, kind="none"))

    assert machine.builds
    assert "none works here now" in engine(machine)
    assert "is here" in engine(replace(LAPTOP, kind="native"))


def test_what_does_not_fit_is_refused_with_the_nodes_arithmetic() -> None:
    candidate, purpose = asked("70b:Q4", ())

    found = advice.explain(candidate, purpose, PI5)

    assert found.models == ()
    assert "does not fit: needs " in found.notes[0]
    assert "weights" in found.notes[0]


def test_a_model_that_is_here_is_shown_beside_a_better_one(tmp_path: Path) -> None:
    model = look(a_model(tmp_path / "mine.F16.gguf"))

    found = advice.advise(PC, (model,))  # type: ignore[arg-type] # it is one

    chat = [each for each in found.models if each.purpose is CHAT]
    assert [each.candidate.here for each in chat] == [False, True]


def test_of_models_that_are_all_too_slow_the_soonest_comes_first() -> None:
    purpose = replace(CHAT, speed=10_000.0)

    found = ranked(candidates_for("chat", ()), purpose, PI5)

    assert found[0].model.model == SMOLLM2
    assert not found[0].meets


@pytest.mark.parametrize("size", ["1b", "7b", "13b", "33b", "200b", "0.3b"])
def test_a_size_becomes_a_model_of_that_size(size: str) -> None:
    found = of_size(size)

    assert found is not None
    assert parameters(found) / 1e9 == pytest.approx(float(size[:-1]), rel=0.1)


@pytest.mark.parametrize("text", ["0b", "b", "7", "seven", "7b:Q99", "none.gguf"])
def test_what_is_no_model_is_one_sentence(text: str) -> None:
    with pytest.raises(Exception, match=r"known|cannot|not|No such") as caught:
        asked(text, ())

    assert type(caught.value).__mro__[1].__name__ == "CommandError"


def test_a_mistyped_name_gets_a_suggestion() -> None:
    with pytest.raises(UnknownQuestion, match="did you mean 'qwen3-30b-a3b'"):
        asked("qwen3-30b-a3", ())


@pytest.mark.parametrize("machine", [PI5, LAPTOP, PC, H200, TWO])
def test_every_command_exists_with_its_flags(machine: AdvisedMachine) -> None:
    models = advice.advise(machine).models
    named = replace(machine, name="a node")
    lines = [command(m, where) for m in models for where in (machine, named)]

    assert lines
    steps = [step for line in lines for step in line.split(" && ")]
    assert [problem for step in steps for problem in problems(step)] == []


def test_an_unquantized_file_is_advised_with_the_variant_to_make(
    tmp_path: Path,
) -> None:
    path = a_model(tmp_path / "big.F16.gguf", Shape(embedding=512, feed_forward=1024))
    candidate, purpose = asked(str(path), ())

    found = placed(candidate, LAPTOP, replace(purpose, speed=5000.0))

    line = command(found, LAPTOP)
    assert found.model.label != "F16"
    assert line.startswith(f"edgeserve quantize run {path} --types {found.model.label}")
    assert problems(line.split(" && ")[0]) == []


def test_json_has_the_figures_with_their_arithmetic() -> None:
    (found,) = as_json([advice.advise(TWO)])

    chat = found["models"][0]
    assert chat["write"] > 0
    assert chat["gpu_layers"] == -1
    assert any(line.startswith("writes ") for line in chat["arithmetic"])
    assert [gpu["name"] for gpu in found["machine"]["gpus"]] == [
        "NVIDIA GeForce RTX 3090"
    ] * 2
