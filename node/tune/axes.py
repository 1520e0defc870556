"""Search axes: which settings are worth trying, the most promising first. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice

import msgspec

from edgeserve.config.settings import NodeSettings
from edgeserve.reports.hardware import Cpu
from edgeserve.wire import Launch
from node.tune.search import Axis, Step, put

SLOTS = (1, 2, 4, 8, 16, 32)
BATCHES = (32, 64, 128, 256, 512, 1024, 2048)
SPINS = ((5_000, 50_000), (200, 1))
"""More than the default, and less; which is better depends on other processes."""

SPECULATIONS = ("ngram-mod", "ngram-map-k", "ngram-simple")
"""llama.cpp's speculative decoding from the text itself, without a second model."""

DRAFT = "draft-simple"
DRAFT_TOKENS = (3, 6)
"""How many tokens a draft model guesses ahead: few, and more."""

MOST_DRAFTS = 3
"""How many draft models are tried, the smallest first."""

SPECULATION_FLAG, DRAFT_FLAG = "--spec-type", "--spec-draft-model"
"""Flags that not every llama-server has."""

EVERY = frozenset((SPECULATION_FLAG, DRAFT_FLAG))


def axes(
    untuned: Launch,
    cpu: Cpu,
    settings: NodeSettings,
    options: Collection[str] = EVERY,
    drafts: Iterable[str] = (),
) -> tuple[Axis, ...]:
    """Return the settings to tune, except those that the node's settings fix.

    `options` are the flags that the engine knows; `drafts` the variants that can draft.
    """
    fixed = {name for name in ("slots", "threads", "batch") if vars(settings)[name]}
    if "threads" in fixed:
        fixed.add("batch threads")
    on_gpu = untuned.gpu_layers != 0
    each = (
        *_shape(untuned),
        *_drafting(options, drafts),  # early: it may double the speed of one stream
        *(_of_gpu if on_gpu else _of_cpu)(untuned, cpu, options),
    )
    return tuple(axis for axis in each if axis.name not in fixed and axis.ladders)


def _shape(untuned: Launch) -> Iterator[Axis]:
    yield Axis("slots", _both_ways("slots", SLOTS, untuned.slots))


def _of_cpu(untuned: Launch, cpu: Cpu, options: Collection[str]) -> Iterator[Axis]:
    counts = _threads(untuned, cpu)
    yield Axis("threads", tuple((_threads_alone(n),) for n in counts))
    yield Axis("batch threads", tuple((put(threads_batch=n),) for n in counts))
    yield Axis("spin", tuple(tuple(put(spin=n) for n in way) for way in SPINS))
    yield from _usual(untuned)
    yield from _speculation(options)


def _of_gpu(untuned: Launch, cpu: Cpu, options: Collection[str]) -> Iterator[Axis]:
    yield from _usual(untuned)
    yield from _speculation(options)
    if untuned.gpu_layers > 0 or untuned.overrides:  # the processor computes, too
        yield Axis("threads", tuple((put(threads=n),) for n in _threads(untuned, cpu)))


def _usual(untuned: Launch) -> Iterator[Axis]:
    yield Axis("batch", _both_ways("batch", BATCHES, untuned.batch))
    yield Axis("ubatch", ((_larger_ubatch, _larger_ubatch), (_smaller_ubatch,) * 2))
    yield Axis("flash attention", ((_slow_attention,),))
    yield Axis("KV type", ((put(kv_type="q8_0", flash_attention=True),),))


def _speculation(options: Collection[str]) -> Iterator[Axis]:
    if SPECULATION_FLAG in options:
        ladders = ((_from_text(each),) for each in SPECULATIONS)
        yield Axis("speculation", tuple(ladders))


def _from_text(kind: str) -> Step:
    return put(speculative=kind, draft="", draft_tokens=0)


def _drafting(options: Collection[str], drafts: Iterable[str]) -> Iterator[Axis]:
    """Try each draft model by few tokens and by more."""
    if not EVERY.issubset(options):
        return
    ladders = (
        tuple(put(speculative=DRAFT, draft=each, draft_tokens=n) for n in DRAFT_TOKENS)
        for each in islice(drafts, MOST_DRAFTS)
    )
    yield Axis("draft model", tuple(ladders))


def _both_ways(
    name: str, values: Iterable[int], now: int
) -> tuple[tuple[Step, ...], ...]:
    """Return a ladder upwards from `now`, and one downwards."""
    steps = list(values)
    up = [put(**{name: n}) for n in steps if n > now]
    down = [put(**{name: n}) for n in reversed(steps) if n < now]
    return tuple(way for way in (tuple(up), tuple(down)) if way)


def _threads(untuned: Launch, cpu: Cpu) -> list[int]:
    """All logical processors, one core left to others, half of the cores."""
    cores = untuned.threads
    wanted = (cpu.logical_cores, cores - 1, cores // 2)
    return [n for n in dict.fromkeys(wanted) if n > 0 and n != cores]


def _threads_alone(count: int) -> Step:
    """Change the threads that write for one stream, not those for many tokens.

    The former wait for memory, which fewer threads may load as fully; the latter
    compute.
    """

    def step(launch: Launch) -> Launch:
        many = launch.threads_batch or launch.threads
        return msgspec.structs.replace(
            launch, threads=count, threads_batch=0 if many == count else many
        )

    return step


def _larger_ubatch(launch: Launch) -> Launch:
    """Double it, within the batch."""
    if not launch.ubatch:
        return launch
    larger = min(launch.ubatch * 2, launch.batch)
    return msgspec.structs.replace(launch, ubatch=larger)


def _smaller_ubatch(launch: Launch) -> Launch:
    half = (launch.ubatch or launch.batch) // 2
    return msgspec.structs.replace(launch, ubatch=max(half, min(BATCHES)))


def _slow_attention(launch: Launch) -> Launch:
    """Turn flash attention off, unless quantized values need it."""
    plain = launch.kv_type == "f16"
    return msgspec.structs.replace(launch, flash_attention=not plain)
