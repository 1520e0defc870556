"""What machines that people own are given, model by model."""

import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.models.memory import need
from node.planning.fit import SHARE, Fitted, Load, Refusal, Room, fit
from quantize.plan.machines import SYSTEM
from tests.node.shapes import facts

GIB = 2**30

TINY = facts(0.25, layers=32, head=64, vocabulary=49_000)  # SmolLM2 360M, Q4_K_M
SMALL = facts(0.72, layers=16, head=64, vocabulary=128_000)  # Llama 3.2 1B, Q4_K_M
MIDDLE = facts(1.88, layers=28, vocabulary=128_000)  # Llama 3.2 3B, Q4_K_M
USUAL = facts(4.58, vocabulary=128_000)  # Llama 3.1 8B, Q4_K_M
CLOSE = facts(7.95, vocabulary=128_000)  # the same, Q8_0
LARGE = facts(39.6, layers=80, vocabulary=128_000)  # Llama 3.1 70B, Q4_K_M
MODELS = {
    "360M": TINY,
    "1B": SMALL,
    "3B": MIDDLE,
    "8B": USUAL,
    "8B-Q8": CLOSE,
    "70B": LARGE,
}

PI3_1 = Room(cores=4, memory=GIB - SYSTEM)
PI4_2, PI4_4, PI4_8 = (Room(cores=4, memory=n * GIB - SYSTEM) for n in (2, 4, 8))
PI5_4, PI5_8, PI5_16 = (Room(cores=4, memory=n * GIB - SYSTEM) for n in (4, 8, 16))
LAPTOP_8, LAPTOP_16, LAPTOP_32 = (
    Room(cores=8, memory=n * GIB // 2) for n in (8, 16, 32)
)
GPUS = {
    n: Room(cores=16, memory=64 * GIB, gpu_memory=n * 23 * GIB) for n in range(1, 9)
}
PLACES = {
    "Pi 3 1 GB": PI3_1,
    "Pi 4 2 GB": PI4_2, "Pi 4 4 GB": PI4_4, "Pi 4 8 GB": PI4_8, "Pi 5 4 GB": PI5_4,
    "Pi 5 8 GB": PI5_8, "Pi 5 16 GB": PI5_16, "laptop 8 GB": LAPTOP_8,
    "laptop 16 GB": LAPTOP_16, "laptop 32 GB": LAPTOP_32,
    **{f"{n} GPUs": room for n, room in GPUS.items()},
}  # fmt: skip

Given = tuple[int, int, str, int]
"""Slots, context, KV type and layers on GPUs."""


@pytest.mark.parametrize(
    ("place", "model", "given"),
    [
        ("Pi 3 1 GB", "360M", (1, 4096, "q8_0", 0)),
        ("Pi 3 1 GB", "1B", None),
        ("Pi 4 2 GB", "1B", (1, 8192, "f16", 0)),
        ("Pi 4 2 GB", "3B", None),
        ("Pi 4 4 GB", "1B", (1, 8192, "f16", 0)),
        ("Pi 4 4 GB", "3B", (1, 8192, "f16", 0)),
        ("Pi 4 4 GB", "8B", None),
        ("Pi 4 8 GB", "8B", (1, 8192, "f16", 0)),
        ("Pi 4 8 GB", "8B-Q8", None),
        ("Pi 5 4 GB", "3B", (1, 8192, "f16", 0)),
        ("Pi 5 8 GB", "8B", (1, 8192, "f16", 0)),
        ("Pi 5 16 GB", "8B-Q8", (1, 8192, "f16", 0)),
        ("laptop 8 GB", "1B", (4, 8192, "f16", 0)),
        ("laptop 8 GB", "3B", (3, 4096, "f16", 0)),
        ("laptop 8 GB", "8B", None),
        ("laptop 16 GB", "8B", (4, 4096, "f16", 0)),
        ("laptop 16 GB", "8B-Q8", None),
        ("laptop 32 GB", "8B-Q8", (4, 8192, "f16", 0)),
        ("1 GPUs", "8B", (4, 8192, "f16", -1)),
        ("2 GPUs", "70B", (1, 4096, "f16", -1)),
        ("3 GPUs", "70B", (4, 8192, "f16", -1)),
    ],
)
def test_machines_get_what_they_can_hold(
    place: str, model: str, given: Given | None
) -> None:
    found = fit(Load(facts=MODELS[model]), NodeSettings(), PLACES[place])

    if given is None:
        assert isinstance(found, Refusal)
        return
    assert isinstance(found, Fitted)
    launch = found.launch
    assert (launch.slots, launch.context, launch.kv_type, launch.gpu_layers) == given


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_planned_that_would_swap(place: str, model: str) -> None:
    room = PLACES[place]
    found = fit(Load(facts=MODELS[model]), NodeSettings(), room)

    if isinstance(found, Fitted):
        launch = found.launch
        whole = need(
            MODELS[model],
            slots=launch.slots,
            context=launch.context,
            kv_type=launch.kv_type,
            ubatch=launch.ubatch or launch.batch,
        )
        assert found.need == whole
        assert found.memory <= room.memory * SHARE
        assert found.gpu_memory <= room.gpu_memory * SHARE
        assert found.memory + found.gpu_memory >= whole.total
    else:
        assert "may be used" in found.reason


@pytest.mark.parametrize("count", range(1, 9))
def test_more_gpus_take_more_layers_of_a_large_model(count: int) -> None:
    found = fit(Load(facts=LARGE), NodeSettings(), GPUS[count])
    fewer = fit(Load(facts=LARGE), NodeSettings(), GPUS[max(1, count - 1)])
    assert isinstance(found, Fitted)
    assert isinstance(fewer, Fitted)

    def layers(each: Fitted) -> int:
        return 80 if each.launch.gpu_layers < 0 else each.launch.gpu_layers

    assert layers(found) >= layers(fewer) > 0
    assert (found.launch.gpu_layers == -1) is (count >= 2)


def test_slots_are_given_up_for_layers_on_the_gpu() -> None:
    half = facts(18.0, layers=64, vocabulary=128_000)
    found = fit(Load(facts=half), NodeSettings(), GPUS[1])

    assert isinstance(found, Fitted)
    assert found.launch.gpu_layers == -1
    assert found.launch.slots < 4
    assert found.preferred is not None
    assert found.preferred.slots == 4


def test_keys_and_values_are_halved_before_the_context_gets_scant() -> None:
    room = Room(cores=4, memory=int(5.75 * GIB))
    found = fit(Load(facts=USUAL), NodeSettings(), room)

    assert isinstance(found, Fitted)
    assert (found.launch.context, found.launch.kv_type) == (4096, "q8_0")
    assert found.preferred is not None
    assert (found.preferred.context, found.preferred.kv_type) == (8192, "f16")


def test_a_preferred_context_may_be_had_with_halved_keys_and_values() -> None:
    settings = NodeSettings(context=24576)
    found = fit(Load(facts=USUAL), settings, PI5_8)

    assert isinstance(found, Fitted)
    assert (found.launch.context, found.launch.kv_type) == (24576, "q8_0")


def test_heads_that_do_not_divide_into_blocks_stay_as_they_are() -> None:
    odd = facts(4.58, head=80)
    settings = NodeSettings(context=32768)

    assert isinstance(fit(Load(facts=odd), settings, PI5_8), Refusal)
