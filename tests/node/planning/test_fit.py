from dataclasses import replace
from typing import Any

import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.models.facts import ModelFacts
from edgeserve.models.memory import need
from node.planning.fit import SHARE, Fitted, Load, Refusal, Room, leaves
from node.planning.fit import fit as fit_load
from node.planning.tunings import Tuned
from tests.node.shapes import facts

GIB = 2**30

PI4_2G = Room(cores=4, memory=1400 * 2**20)
PI5_8G = Room(cores=4, memory=7 * GIB)
LAPTOP = Room(cores=8, memory=12 * GIB)
GPU_BOX = Room(cores=16, memory=60 * GIB, gpu_memory=24 * GIB)


def fit(
    facts: ModelFacts,
    role: Any,
    settings: NodeSettings,
    room: Room,
    tuned: Tuned | None = None,
) -> Fitted | Refusal:
    return fit_load(Load(facts=facts, role=role), settings, room, tuned)


def fitted(
    room: Room, gib: float = 1.0, role: Any = "generate", **settings: Any
) -> Fitted:
    found = fit(facts(gib), role, NodeSettings(**settings), room)
    assert isinstance(found, Fitted), found
    return found


@pytest.mark.parametrize(
    ("room", "gib", "slots", "context", "batch"),
    [
        (PI5_8G, 1.0, 1, 8192, 256),
        (PI5_8G, 4.6, 1, 8192, 256),
        (PI5_8G, 5.6, 1, 4096, 256),
        (PI4_2G, 0.6, 1, 4096, 256),
        (PI4_2G, 0.9, 1, 2048, 256),
        (LAPTOP, 1.0, 4, 8192, 512),
        (LAPTOP, 8.0, 4, 4096, 512),
        (GPU_BOX, 13.0, 4, 8192, 2048),
    ],
)
def test_machines_get_what_they_can_hold(
    room: Room, gib: float, slots: int, context: int, batch: int
) -> None:
    launch = fitted(room, gib).launch

    assert (launch.slots, launch.context, launch.batch) == (slots, context, batch)


@pytest.mark.parametrize("gib", [0.3, 0.6, 0.9, 1.0, 2.0, 3.5, 5.0, 6.0])
@pytest.mark.parametrize("room", [PI4_2G, PI5_8G, LAPTOP])
def test_what_is_launched_never_needs_more_than_there_is(
    room: Room, gib: float
) -> None:
    found = fit(facts(gib), "generate", NodeSettings(), room)

    if isinstance(found, Fitted):
        launch = found.launch
        whole = need(
            facts(gib),
            slots=launch.slots,
            context=launch.context,
            kv_type=launch.kv_type,
            ubatch=launch.batch,
        )
        assert whole.total <= room.memory * SHARE
    else:
        assert gib * GIB > room.memory * SHARE * 0.6


def test_what_cannot_fit_is_refused_with_the_arithmetic() -> None:
    refused = fit(facts(4.6), "generate", NodeSettings(), PI4_2G)

    assert isinstance(refused, Refusal)
    assert "weights 4.6 GiB" in refused.reason
    assert "1.37 GiB is free" in refused.reason


def test_settings_are_taken_as_they_stand() -> None:
    launch = fitted(LAPTOP, slots=3, context=1000, batch=64, threads=5).launch

    assert (launch.slots, launch.context) == (3, 1000)
    assert (launch.batch, launch.threads) == (64, 5)


def test_a_context_that_was_asked_for_is_refused_rather_than_cut() -> None:
    settings = NodeSettings(context=32768, slots=4)

    assert isinstance(fit(facts(1.0), "generate", settings, PI5_8G), Refusal)


def test_a_prompt_cache_takes_its_memory_from_contexts_and_slots() -> None:
    without, beside = fitted(LAPTOP, 8.0), fitted(LAPTOP, 8.0, cache_ram_mib=2048)

    assert without.launch.cache_ram_mib == 0
    assert beside.launch.cache_ram_mib == 2048
    assert beside.need.cache == 2 * GIB
    assert beside.memory <= LAPTOP.memory * SHARE
    assert beside.launch.slots < without.launch.slots


def test_a_prompt_cache_that_does_not_fit_is_refused_with_the_arithmetic() -> None:
    refused = fit(facts(1.0), "generate", NodeSettings(cache_ram_mib=8192), PI5_8G)

    assert isinstance(refused, Refusal)
    assert "+ prompt cache 8 GiB" in refused.reason


def test_embeddings_keep_no_prompts() -> None:
    found = fitted(LAPTOP, role="embeddings", cache_ram_mib=2048)

    assert (found.launch.cache_ram_mib, found.need.cache) == (0, 0)


def test_threads_are_the_cores_we_may_use() -> None:
    assert fitted(Room(cores=3, memory=8 * GIB)).launch.threads == 3


def test_no_context_beyond_what_the_model_learned() -> None:
    found = fit(facts(0.5, context=2048), "generate", NodeSettings(), LAPTOP)

    assert isinstance(found, Fitted)
    assert found.launch.context == 2048


def test_embeddings_read_a_whole_text_in_one_call() -> None:
    launch = fitted(LAPTOP, 0.2, role="embeddings").launch

    assert launch.batch == launch.context == 2048


@pytest.mark.parametrize(
    ("asked", "room", "layers"),
    [
        ("auto", LAPTOP, 0),
        ("auto", GPU_BOX, -1),
        ("all", GPU_BOX, -1),
        ("7", GPU_BOX, 7),
        ("0", GPU_BOX, 0),
        ("all", LAPTOP, -1),
    ],
)
def test_layers_go_to_the_gpu_as_asked_or_as_they_fit(
    asked: str, room: Room, layers: int
) -> None:
    assert fitted(room, 4.0, gpu_layers=asked).launch.gpu_layers == layers


def test_part_of_a_model_too_large_for_the_gpu_goes_there() -> None:
    room = Room(cores=16, memory=60 * GIB, gpu_memory=8 * GIB)
    found = fitted(room, 13.0)

    assert 0 < found.launch.gpu_layers < 32
    assert found.gpu_memory <= room.gpu_memory * SHARE


def test_a_second_engine_gets_what_the_first_left() -> None:
    first = fitted(PI5_8G, 3.0)
    left = replace(PI5_8G, memory=PI5_8G.memory - first.memory)

    assert isinstance(fit(facts(4.0), "generate", NodeSettings(), left), Refusal)


def test_all_layers_on_a_gpu_too_small_are_tried_since_the_engine_steps_down() -> None:
    room = Room(cores=16, memory=60 * GIB, gpu_memory=4 * GIB)
    found = fit(facts(8.0), "generate", NodeSettings(gpu_layers="all"), room)

    assert isinstance(found, Fitted)
    assert found.launch.gpu_layers == -1
    assert found.gpu_memory <= room.gpu_memory
    assert found.memory > 4 * GIB


def test_many_short_slots_share_a_large_batch_on_a_gpu() -> None:
    launch = fitted(GPU_BOX, slots=32, context=1024).launch

    assert (launch.batch, launch.ubatch) == (2048, 512)


def test_a_refusal_says_what_is_free_or_what_the_settings_leave() -> None:
    free, limited = (
        leaves(Room(cores=4, memory=GIB, allowed=each)) for each in (None, 2**24)
    )
    assert free == "1 GiB is free, of which 90% may be used"
    assert limited == "`memory_mib` leaves 16 MiB"
