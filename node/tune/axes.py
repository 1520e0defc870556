"""What is worth trying, the most promising first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from edgeserve.config import NodeSettings
from edgeserve.wire import Cpu, Launch
from node.tune.search import Axis, Step, put

SLOTS = (1, 2, 4, 8, 16)
BATCHES = (32, 64, 128, 256, 512, 1024, 2048)
SPINS = ((5_000, 50_000), (200, 1))
"""More than the usual, and less; what pays depends on who else uses the processor."""

GUESSERS = ("ngram-mod", "ngram-simple")
"""llama.cpp's speculative decoding out of the text itself, without a second model."""


def axes(untuned: Launch, cpu: Cpu, settings: NodeSettings) -> tuple[Axis, ...]:
    """Return the settings to tune, less those that somebody has set."""
    said = {name for name in ("slots", "threads", "batch") if vars(settings)[name]}
    return tuple(each for each in _axes(untuned, cpu) if each.name not in said)


def _axes(untuned: Launch, cpu: Cpu) -> Iterator[Axis]:
    yield Axis("slots", _both_ways("slots", SLOTS, untuned.slots))
    yield Axis("threads", tuple((put(threads=n),) for n in _threads(untuned, cpu)))
    yield Axis("spin", tuple(tuple(put(spin=n) for n in way) for way in SPINS))
    yield Axis("batch", _both_ways("batch", BATCHES, untuned.batch))
    yield Axis("ubatch", ((_smaller_ubatch, _smaller_ubatch),))
    yield Axis("flash attention", ((_slow_attention,),))
    yield Axis("KV type", ((put(kv_type="q8_0", flash_attention=True),),))
    yield Axis("speculation", tuple((put(speculative=each),) for each in GUESSERS))


def _both_ways(
    name: str, values: Iterable[int], now: int
) -> tuple[tuple[Step, ...], ...]:
    """Climb from here upwards, and from here downwards."""
    steps = list(values)
    up = [put(**{name: n}) for n in steps if n > now]
    down = [put(**{name: n}) for n in reversed(steps) if n < now]
    return tuple(up), tuple(down)


def _threads(untuned: Launch, cpu: Cpu) -> list[int]:
    """All logical processors, one core left to others, half of the cores."""
    cores = untuned.threads
    wanted = (cpu.logical_cores, cores - 1, cores // 2)
    return [n for n in dict.fromkeys(wanted) if n > 0 and n != cores]


def _smaller_ubatch(launch: Launch) -> Launch:
    half = (launch.ubatch or launch.batch) // 2
    return msgspec.structs.replace(launch, ubatch=max(half, min(BATCHES)))


def _slow_attention(launch: Launch) -> Launch:
    """Turn flash attention off, unless quantized values need it."""
    plain = launch.kv_type == "f16"
    return msgspec.structs.replace(launch, flash_attention=not plain)
