from dataclasses import replace

import msgspec
import pytest

from edgeserve.cli.advise import advice
from edgeserve.cli.advise.machine import AdvisedMachine, fleet_machines
from edgeserve.cli.advise.question import asked
from edgeserve.cli.advise.vllm import vllm_plan
from edgeserve.wire import NodeReport
from tests.edgeserve.cli.advise.machines import H200, LAPTOP, PC, PI5, TWO, a_machine
from tests.edgeserve.cli.advise.test_advice import LLAMA_13B
from tests.fakes.commands import problems


def named(machine: AdvisedMachine, name: str) -> AdvisedMachine:
    return replace(machine, name=name)


@pytest.mark.parametrize(("streams", "measured"), [(32, 8748), (64, 11293)])
def test_vllms_throughput_is_near_what_was_measured(
    streams: int, measured: float
) -> None:
    plan = vllm_plan(replace(LLAMA_13B, original="a 13B"), [H200], streams)

    assert plan is not None
    assert plan.together == pytest.approx(measured, rel=0.3)


def test_vllm_is_advised_for_many_at_once_and_not_for_one() -> None:
    one, many = advice.advise(H200), advice.advise(H200, streams=32)

    assert one.vllm is None
    assert any("--streams" in note for note in one.notes)
    assert many.vllm is not None
    assert many.vllm.original == "Qwen/Qwen2.5-32B-Instruct"
    vllm, balancer = many.vllm.command.split(" & ")
    assert vllm == "vllm serve Qwen/Qwen2.5-32B-Instruct --max-num-seqs 32"
    assert problems(balancer) == []


def test_vllm_gets_both_gpus_of_a_machine() -> None:
    plan = advice.advise(TWO, streams=16).vllm

    assert plan is not None
    assert "--tensor-parallel-size 2" in plan.command


@pytest.mark.parametrize(
    "machine",
    [
        PI5,
        LAPTOP,
        PC,
        a_machine("AMD", 8, 31, gpu="AMD Radeon RX 7900 XTX", gpu_gib=24),
        a_machine("AMD", 8, 31, gpu="NVIDIA GeForce GTX 1080 Ti", gpu_gib=80),
    ],
    ids=["no GPU", "none either", "too small", "no NVIDIA", "too old"],
)
def test_vllm_is_not_advised_where_it_cannot_serve_an_able_model(
    machine: AdvisedMachine,
) -> None:
    found = advice.advise(machine, streams=32)

    assert found.vllm is None
    assert any("more machines help" in note for note in found.notes)


def test_ray_joins_machines_where_none_has_the_room() -> None:
    question = asked("72b:Q8", ())
    machines = [named(TWO, "a"), named(TWO, "b"), named(TWO, "c"), named(TWO, "d")]

    found, plan, sentence = advice.for_fleet(machines, question)

    assert not any(model.meets for each in found for model in each.models)
    assert plan is not None
    assert plan.ray
    assert plan.cards == 2
    assert "--pipeline-parallel-size 4" in plan.command
    assert "Ray joins" in sentence


def test_a_fleet_that_serves_a_model_needs_no_ray() -> None:
    question = asked("7b", ())

    found, plan, sentence = advice.for_fleet(
        [named(PC, "pc"), named(PI5, "pi"), named(H200, "box")], question
    )

    assert plan is None
    assert [bool(e.models and e.models[0].meets) for e in found] == [True, False, True]
    assert sentence.startswith("pc, box: ")


def test_nodes_are_read_from_their_reports() -> None:
    report = NodeReport(
        id="1", name="pc", version="0", state="up", port=1, hardware=PC.hardware
    )
    shown = msgspec.to_builtins(report)
    nodes = [
        {"state": "up", "report": shown},
        {"state": "down", "report": shown},
        {"state": "asking", "report": None},
    ]

    (found,) = fleet_machines(nodes)

    assert found.name == "pc"
    assert found.hardware == PC.hardware
    assert [each.memory_free for each in found.devices] == [
        PC.hardware.gpus[0].memory_free
    ]
