"""How an engine is launched here: slots, context, batch, threads, layers. Pure.

What the settings say is taken as it stands; the rest is chosen to fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeserve.config import NodeSettings
from edgeserve.wire import Launch
from node.engines.protocol import Role
from node.offload import experts_on_cpu
from quantize.facts import ModelFacts
from quantize.memory import Need, need, size

SHARE = 0.9
"""Part of the free memory that engines may take; the rest is for everything else."""

SMALL_CORES = 4
"""Up to here, one request at a time: two would only slow each other."""

MOST_SLOTS = 4
CONTEXT, LEAST_CONTEXT, SCANT_CONTEXT = 8192, 4096, 512
"""Tokens per slot: wanted; worth giving up slots for; the least, with one slot."""

EMBEDDING_CONTEXT = 2048
"""llama.cpp makes a vector in one computation, whose memory grows with its length."""

SMALL_BATCH, BATCH = 256, 512
"""A cancelled request ends after the decode call in progress, so calls stay short."""

STEP = 256
"""llama.cpp rounds contexts up to this."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """What there is: cores we may use, free memory and free GPU memory in bytes."""

    cores: int
    memory: int
    gpu_memory: int = 0


@dataclass(frozen=True)
class Fitted:
    """How to launch, and the bytes it is expected to take."""

    launch: Launch
    memory: int
    gpu_memory: int = 0


@dataclass(frozen=True)
class Refusal:
    """It cannot run here; the reason shows the arithmetic."""

    reason: str


def fit(
    facts: ModelFacts, role: Role, settings: NodeSettings, room: Room
) -> Fitted | Refusal:
    """Choose the most generous launch that fits, or say what the least would take."""
    least: Need | None = None
    for slots, context in _choices(facts, role, settings, room):
        batch = _batch(role, settings, context, room)
        least = need(facts, slots=slots, context=context, ubatch=batch)
        taken = _placed(least, facts.layers, settings.gpu_layers, room)
        if taken is None:
            continue
        layers, memory, gpu_memory = taken
        launch = Launch(
            slots=slots,
            context=context,
            batch=batch,
            threads=settings.threads or room.cores,
            gpu_layers=layers,
            tensor_split=split_of(settings),
            overrides=experts_on_cpu(settings.experts_on_cpu) if layers else "",
            main_gpu=settings.main_gpu,
        )
        return Fitted(launch, memory, gpu_memory)
    assert least is not None  # noqa: S101 - there is always a choice
    return Refusal(
        f"needs {least.arithmetic()}; {size(max(room.memory, 0))} is free, of which"
        f" {SHARE:.0%} may be used"
    )


def split_of(settings: NodeSettings) -> tuple[float, ...]:
    """Return each GPU's share as asked; empty where llama.cpp may split by memory."""
    return tuple(float(share) for share in settings.tensor_split.split(",") if share)


def _choices(
    facts: ModelFacts, role: Role, settings: NodeSettings, room: Room
) -> Iterator[tuple[int, int]]:
    """Yield slots and context, the best first."""
    trained = facts.context or CONTEXT
    for slots in [settings.slots] if settings.slots else _slots(room):
        if settings.context:
            yield slots, settings.context
            continue
        last = settings.slots > 0 or slots == 1
        floor = min(trained, SCANT_CONTEXT if last else LEAST_CONTEXT)
        context = min(trained, CONTEXT if role == "generate" else EMBEDDING_CONTEXT)
        while context >= floor:
            yield slots, context
            context = context // 2 // STEP * STEP or context // 2


def _slots(room: Room) -> range:
    """Return the numbers of slots to try."""
    small = room.cores <= SMALL_CORES and not room.gpu_memory
    most = 1 if small else min(MOST_SLOTS, max(1, room.cores // 2))
    return range(MOST_SLOTS if room.gpu_memory else most, 0, -1)


def _batch(role: Role, settings: NodeSettings, context: int, room: Room) -> int:
    if role != "generate":
        return context
    if settings.batch:
        return settings.batch
    small = room.cores <= SMALL_CORES and not room.gpu_memory
    return min(context, SMALL_BATCH if small else BATCH)


def _placed(
    wanted: Need, layers: int, asked: str, room: Room
) -> tuple[int, int, int] | None:
    """Return layers on the GPU and bytes in each memory, or None where it cannot fit.

    Part of the layers on the GPU takes that part of weights and KV with it.
    """
    count = _layers(wanted, layers, asked, room)
    part = 1.0 if count < 0 else min(count / max(layers, 1), 1.0)
    if not room.gpu_memory:
        part = 0.0
    moved = int((wanted.weights + wanted.kv) * part)
    on_gpu = moved + wanted.compute if part else 0
    memory = wanted.total - moved
    fits = memory <= room.memory * SHARE and on_gpu <= room.gpu_memory * SHARE
    return (count, memory, on_gpu) if fits else None


def _layers(wanted: Need, layers: int, asked: str, room: Room) -> int:
    """Return how many layers go to the GPU, -1 for all."""
    if asked != "auto":
        return -1 if asked == "all" else int(asked)
    spare = room.gpu_memory * SHARE - wanted.compute
    if spare <= 0:
        return 0
    part = spare / (wanted.weights + wanted.kv)
    return -1 if part >= 1 else int(layers * part)
