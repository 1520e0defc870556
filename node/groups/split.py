"""Split: which machine of a group computes which layers, as llama.cpp is told. Pure.

llama.cpp gives the first layers to the processor of the head, and the rest in order to
its devices. Workers come first among these, then the GPUs of the head. The output layer
stays on the head: what it makes is a number for each word of the vocabulary, which is
many times what crosses between layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from edgeserve.wire import Launch

ALL = -1
HEAD_ONLY = "^(output|token_embd)=CPU"
"""Overrides that keep the output layer on the processor of the head."""

HALF = 0.5
"""Limits between devices lie between two layers, so that no rounding moves one."""


@dataclass(frozen=True)
class Layers:
    """How many layers the head computes, and each worker, in order."""

    head: int
    workers: tuple[int, ...]


def layers_of(count: int, head: float, workers: Sequence[float]) -> Layers:
    """Divide layers by shares; a worker gets one at least, where there are enough."""
    shares = [head, *workers]
    exact = [count * each / sum(shares) for each in shares]
    whole = [int(each) for each in exact]
    rest = sorted(range(len(exact)), key=lambda at: whole[at] - exact[at])
    for at in rest[: count - sum(whole)]:
        whole[at] += 1
    for at in range(1, len(whole)):
        most = max(range(len(whole)), key=lambda each: whole[each])
        if whole[at] == 0 and whole[most] > 1:
            whole[at], whole[most] = 1, whole[most] - 1
    return Layers(whole[0], tuple(whole[1:]))


def placed(
    launch: Launch, layers: Layers, workers: Sequence[str], gpus: Sequence[str] = ()
) -> Launch:
    """Return a launch with its layers on these workers, and the rest on the head."""
    devices = tuple(f"RPC{at}" for at in range(len(workers)))
    shares = [float(each) for each in layers.workers]
    if gpus:
        devices += tuple(gpus)
        shares += [layers.head / len(gpus)] * len(gpus)
        count, overrides = ALL, ""
    else:
        count = sum(layers.workers) + 1  # the output layer counts
        overrides = HEAD_ONLY
    shares[-1] += 1
    return msgspec.structs.replace(
        launch,
        gpu_layers=count,
        tensor_split=tuple(shares),
        overrides=overrides,
        devices=devices,
        workers=tuple(workers),
    )


def expanded(launch: Launch, devices: Sequence[int]) -> Launch:
    """Return the launch as llama.cpp counts: a worker has one device or several.

    Its layers are divided evenly among them.
    """
    shares, own = list[float](), launch.tensor_split[len(devices) :]
    for share, count in zip(launch.tensor_split, devices, strict=False):
        shares += [share / count] * count
    rpc = tuple(f"RPC{at}" for at in range(len(shares)))
    shares += own
    shares[0] -= HALF
    shares[-1] += HALF
    return msgspec.structs.replace(
        launch,
        tensor_split=tuple(shares),
        devices=(*rpc, *launch.devices[len(devices) :]),
    )
