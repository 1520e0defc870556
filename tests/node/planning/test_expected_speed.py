from dataclasses import replace

import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.models.facts import ModelFacts
from edgeserve.models.header import Tensor
from edgeserve.reports.hardware import Cpu
from node.engines.devices import Device
from node.planning.expected_speed import active_bytes, expected, expected_reading
from node.planning.fit import Fitted, Load, Room, fit
from tests.node.building import some_hardware
from tests.node.shapes import facts

GIB = 2**30


def fitted(model: ModelFacts, threads: int, gpu: int = 0) -> Fitted:
    room = Room(cores=threads, memory=200 * GIB, gpu_memory=gpu)
    found = fit(Load(facts=model), NodeSettings(), room)
    assert isinstance(found, Fitted)
    return found


@pytest.mark.parametrize(
    ("cpu", "cores", "kind", "gib", "measured"),
    [
        ("AMD EPYC 9654", 12, "Q4_K", 4.1, 9.5),
        ("AMD EPYC 9654", 12, "Q8_0", 6.9, 11.0),
        ("Intel Xeon", 2, "Q4_1", 0.091, 65.0),
    ],
)
def test_expectations_are_near_what_was_measured(
    cpu: str, cores: int, kind: str, gib: float, measured: float
) -> None:
    model = facts(gib, kind=kind)
    machine = some_hardware(
        cpu=Cpu(model=cpu, physical_cores=cores, logical_cores=cores, load=0.0)
    )

    assert expected(model, fitted(model, cores), machine, ()) == pytest.approx(
        measured, rel=0.35
    )


@pytest.mark.parametrize(
    ("layers", "measured"), [(0, 87), (8, 898), (16, 1212), (24, 2093), (32, 10095)]
)
def test_expected_reading_is_near_what_was_measured(
    layers: int, measured: float
) -> None:
    model = facts(3.7, kind="Q4_K")
    gpu = [Device("CUDA0", "NVIDIA H100 80GB HBM3", 80 * GIB, 80 * GIB)]
    epyc = Cpu(model="AMD EPYC 9654", physical_cores=16, logical_cores=16, load=0.0)
    room = Room(cores=16, memory=200 * GIB, gpu_memory=80 * GIB if layers else 0)
    settings = NodeSettings(gpu_layers=str(layers))
    chosen = fit(Load(facts=model), settings, room)
    assert isinstance(chosen, Fitted)

    found = expected_reading(model, chosen, some_hardware(cpu=epyc), gpu)

    assert found == pytest.approx(measured, rel=0.35)


def test_a_gpu_is_faster_than_the_processor_and_part_of_it_between() -> None:
    model = facts(8.0, kind="Q4_K")
    gpu = [Device("CUDA0", "NVIDIA GeForce RTX 4090", 24 * GIB, 24 * GIB)]
    machine = some_hardware()

    none = expected(model, fitted(model, 4), machine, gpu)
    part = expected(model, fitted(model, 4, 6 * GIB), machine, gpu)
    whole = expected(model, fitted(model, 4, 24 * GIB), machine, gpu)

    assert none < part < whole


def test_experts_that_sleep_are_not_read() -> None:
    mixture = replace(
        facts(1.0),
        experts=8,
        metadata={"llama.expert_used_count": 2},
        tensors=(
            Tensor("blk.0.ffn_up_exps.weight", "F32", (1024, 8), 0),
            Tensor("blk.0.attn_q.weight", "F32", (1024, 1), 0),
        ),
    )

    assert active_bytes(mixture) == 4096 * (8 / 4 + 1)
