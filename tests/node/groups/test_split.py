from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeserve.orders.groups import understand
from edgeserve.wire import Launch
from node.groups.split import expanded, layers_of, placed

PLAIN = Launch(slots=1, context=512, batch=64, threads=2)


def devices_by_layer(launch: Launch, layers: int) -> list[str]:
    """Return where llama.cpp puts each layer, the output layer last.

    As `llama_model::load_tensors` does it: the first layers to the processor, the rest
    by the cumulative, normalized split.
    """
    count = layers + 1 if launch.gpu_layers < 0 else launch.gpu_layers
    first, total = layers + 1 - count, sum(launch.tensor_split)
    limits = list[float]()
    for share in launch.tensor_split:
        limits.append((limits[-1] if limits else 0.0) + share / total)
    found = list[str]()
    for layer in range(layers + 1):
        if layer < first:
            found.append("CPU")
            continue
        at = (layer - first) / count
        found.append(launch.devices[sum(limit <= at for limit in limits)])
    return found


@given(
    st.integers(1, 200),
    st.lists(st.floats(0.01, 1.0), min_size=2, max_size=16),
    st.booleans(),
)
def test_llama_cpp_puts_each_layer_where_it_was_planned(
    count: int, shares: list[float], gpu: bool
) -> None:
    layers = layers_of(count, shares[0], shares[1:])
    workers = [f"node{at}" for at in range(len(shares) - 1)]
    launch = placed(PLAIN, layers, workers, ("CUDA0",) if gpu else ())
    found = devices_by_layer(expanded(launch, [1] * len(workers)), count)[:count]

    assert layers.head + sum(layers.workers) == count
    assert found.count("CUDA0" if gpu else "CPU") == layers.head
    assert [found.count(f"RPC{at}") for at in range(len(workers))] == [*layers.workers]


def test_each_member_gets_a_layer_where_there_are_enough() -> None:
    assert layers_of(32, 0.0, [0.98, 0.01, 0.01]).workers == (30, 1, 1)


def test_the_output_layer_stays_on_the_head() -> None:
    launch = placed(PLAIN, layers_of(30, 0.5, [0.5]), ["left"])

    assert launch.overrides == "^(output|token_embd)=CPU"
    assert launch.gpu_layers == 16
    assert launch.workers == ("left",)


def test_the_layers_of_a_worker_are_divided_among_its_gpus() -> None:
    launch = placed(PLAIN, layers_of(30, 0.2, [0.4, 0.4]), ["left", "right"])
    found = devices_by_layer(expanded(launch, [2, 1]), 30)

    assert [found.count(each) for each in ("CPU", "RPC0", "RPC1", "RPC2")] == [
        6,
        6,
        6,
        13,  # the output layer among them, which stays on the head
    ]


def test_head_and_worker_need_the_same_major_version_and_no_newer_worker() -> None:
    assert understand("7.0.0", "7.0.3")
    assert understand("7.1.0", "7.0.0")
    assert not understand("7.0.0", "7.1.0")
    assert not understand("7.0.0", "8.0.0")
    assert not understand("7.0.0", "")
    assert not understand("", "7.0.0")
