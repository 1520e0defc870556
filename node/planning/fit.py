"""Fit: slots, context, batch, threads and layers that fit in memory. Pure.

Settings are taken as they are; the rest is chosen to fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from edgeserve.config.settings import NodeSettings
from edgeserve.models.facts import ModelFacts
from edgeserve.models.memory import MIB, Need, compute_bytes, kv_bytes, need, size
from edgeserve.wire import Launch
from node.engines.base import Role
from node.engines.devices import experts_on_cpu
from node.planning.tunings import Tuned

SHARE = 0.9
"""Share of the free memory that engines may take."""

SMALL_CORES = 4
"""With so few cores, one request at a time: two would only slow each other."""

MOST_SLOTS = 4
CONTEXT, LEAST_CONTEXT, SCANT_CONTEXT = 8192, 4096, 512
"""Tokens per slot: preferred; worth fewer slots; the least, with one slot."""

EMBEDDING_CONTEXT = 2048
"""llama.cpp embeds a text in one computation, whose memory grows with the text."""

SMALL_BATCH, BATCH = 256, 512
"""A cancelled request ends after the running decode call, so calls stay short."""

GPU_BATCH = 2048
"""On a GPU a call is short anyway, and 32 streams gained a sixth by larger ones."""

STEP = 256
"""llama.cpp rounds contexts up to this."""

PLAIN, SMALL = "f16", "q8_0"
"""KV types; the small one takes a little more than half of the memory."""

BLOCK = 32
"""Elements of a `q8_0` block: a head's length must be a multiple."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """The usable cores, and free memory and free GPU memory in bytes.

    `allowed` is what the settings leave of main memory, None where they set no limit.
    """

    cores: int
    memory: int
    gpu_memory: int = 0
    allowed: int | None = None

    @property
    def most(self) -> float:
        """Bytes of main memory that an engine may take."""
        free = self.memory * SHARE
        return free if self.allowed is None else min(free, self.allowed)

    def without(self, memory: int, gpu_memory: int) -> Room:
        """Return the room that is left when so much of it is taken."""
        return replace(
            self,
            memory=self.memory - memory,
            gpu_memory=max(0, self.gpu_memory - gpu_memory),
            allowed=None if self.allowed is None else self.allowed - memory,
        )


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A launch, and the bytes it is expected to take in main and GPU memory.

    `preferred` is the memory of the first choice, where that did not fit; `tuned`:
    measured settings are among these.
    """

    launch: Launch
    need: Need
    memory: int
    gpu_memory: int = 0
    preferred: Need | None = None
    tuned: bool = False


@dataclass(frozen=True)
class Refusal:
    """The model cannot run here; the reason shows the arithmetic."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Load:
    """A model in a role to run, and the bytes of files that it needs besides.

    `drafts` are the models that can draft for it, by variant.
    """

    facts: ModelFacts
    role: Role = "generate"
    beside: int = 0
    drafts: Mapping[str, ModelFacts] = field(default_factory=dict[str, ModelFacts])

    @property
    def total(self) -> int:
        """The bytes of all its files."""
        return self.facts.file_bytes + self.beside

    def need(self, launch: Launch) -> Need:
        """Return the memory that a launch takes."""
        return need(
            self.facts,
            slots=launch.slots,
            context=launch.context,
            kv_type=launch.kv_type,
            ubatch=launch.ubatch or launch.batch,
            weights=self.facts.weight_bytes + self.beside,
            cache=launch.cache_ram_mib * MIB,
            draft=self._draft(launch),
        )

    def _draft(self, launch: Launch) -> int:
        """Return the bytes of the draft model; its context is as long."""
        facts = self.drafts.get(launch.draft)
        if facts is None:
            return 0
        tokens = launch.slots * launch.context
        computing = compute_bytes(facts, tokens, launch.ubatch or launch.batch)
        return facts.weight_bytes + kv_bytes(facts, tokens) + computing


def fit(
    load: Load, settings: NodeSettings, room: Room, tuned: Tuned | None = None
) -> Fitted | Refusal:
    """Choose the largest launch that fits, or return what the smallest would take.

    Tuned settings apply where the settings name no others, and where they change
    neither the context nor the layers on the GPU; a draft model that is not there is
    left out.
    """
    found = _untuned(load, settings, room)
    if isinstance(found, Refusal) or tuned is None:
        return found
    for part in tuned.unless_set(settings).given(load.drafts).lighter():
        launch = msgspec.structs.replace(found.launch, **part.changes)
        fitted = _offloaded(load, launch, settings, room)
        if fitted and part.changes and fitted.launch == launch:
            return replace(fitted, preferred=found.preferred, tuned=True)
    return found


def _untuned(load: Load, settings: NodeSettings, room: Room) -> Fitted | Refusal:
    tried = [_launch(load, settings, room, c) for c in _choices(load, settings, room)]
    fitted = [_offloaded(load, each, settings, room) for each in tried]
    found = [each for each in fitted if each]
    if not found:
        needs = [load.need(each) for each in tried]
        return Refusal(_why(min(needs, key=lambda each: each.total), room))
    preferred = load.need(tried[0])
    best = _all_on_gpu(found, settings, room) or found[0]
    return best if best.need == preferred else replace(best, preferred=preferred)


def _all_on_gpu(
    found: list[Fitted], settings: NodeSettings, room: Room
) -> Fitted | None:
    """Return the best launch with every layer on the GPU: worth more than slots."""
    if not room.gpu_memory or settings.gpu_layers != "auto":
        return None
    most = max(each.launch.context for each in found)
    usable = (e for e in found if e.launch.context >= min(most, LEAST_CONTEXT))
    return next((each for each in usable if each.launch.gpu_layers < 0), None)


def _launch(
    load: Load, settings: NodeSettings, room: Room, choice: tuple[int, int, str]
) -> Launch:
    slots, context, kv_type = choice
    split = room.gpu_memory and load.role == "generate" and not settings.batch
    return Launch(
        slots=slots,
        context=context,
        batch=_batch(load.role, settings, slots, context, room),
        ubatch=BATCH if split else 0,
        threads=settings.threads or room.cores,
        kv_type=kv_type,
        cache_ram_mib=settings.cache_ram_mib if load.role == "generate" else 0,
        tensor_split=tuple(float(n) for n in settings.tensor_split.split(",") if n),
        main_gpu=settings.main_gpu,
    )


def _why(least: Need, room: Room) -> str:
    return f"needs {least.arithmetic()}; {leaves(room)}"


def leaves(room: Room) -> str:
    """Say what may be used of a memory. Pure."""
    gpu = f" beside {size(room.gpu_memory)} on GPUs" if room.gpu_memory else ""
    if room.allowed is not None and room.allowed < room.memory * SHARE:
        left = size(max(room.allowed, 0))
        return f"`memory_mib` leaves {left}{gpu}"
    free = size(max(room.memory, 0))
    return f"{free} is free{gpu}, of which {SHARE:.0%} may be used"


def _choices(
    load: Load, settings: NodeSettings, room: Room
) -> Iterator[tuple[int, int, str]]:
    """Yield slots, context and KV type, the best first.

    Halving keys and values costs almost no quality, but some speed: it is worth a
    usable context, but not a larger one.
    """
    counts = [settings.slots] if settings.slots else list(_slots(room))
    large, small = _contexts(load, settings)
    yield from ((s, c, PLAIN) for s in counts for c in large)
    kv_types = (PLAIN, SMALL) if _halves(load) else (PLAIN,)
    yield from ((s, c, kv) for kv in kv_types[1:] for s in counts for c in large)
    yield from ((counts[-1], c, kv) for c in small for kv in kv_types)


def _contexts(load: Load, settings: NodeSettings) -> tuple[list[int], list[int]]:
    """Return the contexts that are worth fewer slots, and those that are not."""
    if settings.context:
        return [settings.context], []
    trained = load.facts.context or CONTEXT
    wanted = CONTEXT if load.role == "generate" else EMBEDDING_CONTEXT
    context = min(trained, wanted)
    each: list[int] = []
    while context >= min(trained, SCANT_CONTEXT):
        each.append(context)
        context = context // 2 // STEP * STEP or context // 2
    floor = min(each[0], LEAST_CONTEXT)
    return [c for c in each if c >= floor], [c for c in each if c < floor]


def _halves(load: Load) -> bool:
    """Whether keys and values can be stored as `q8_0`."""
    lengths = load.facts.key_length, load.facts.value_length
    return load.role == "generate" and all(n and n % BLOCK == 0 for n in lengths)


def _slots(room: Room) -> range:
    """Return the numbers of slots to try."""
    small = room.cores <= SMALL_CORES and not room.gpu_memory
    most = 1 if small else min(MOST_SLOTS, max(1, room.cores // 2))
    return range(MOST_SLOTS if room.gpu_memory else most, 0, -1)


def _batch(
    role: Role, settings: NodeSettings, slots: int, context: int, room: Room
) -> int:
    """Return the tokens of a decode call, which many slots share on a GPU."""
    if role != "generate":
        return context
    if settings.batch:
        return settings.batch
    if room.gpu_memory:
        return min(slots * context, GPU_BATCH)
    return min(context, SMALL_BATCH if room.cores <= SMALL_CORES else BATCH)


def _offloaded(
    load: Load, launch: Launch, settings: NodeSettings, room: Room
) -> Fitted | None:
    """Put as many layers as possible on the GPU; None where the rest does not fit.

    A share of the layers on the GPU takes that share of weights and KV with it. The
    settings may ask for more layers than the GPU holds: then the engine steps down, and
    the rest must fit in main memory.
    """
    wanted = load.need(launch)
    total = load.facts.layers
    count = _layers(wanted, total, settings.gpu_layers, room)
    part = 1.0 if count < 0 else min(count / max(total, 1), 1.0)
    if not room.gpu_memory:
        part = 0.0
    beside = wanted.compute + wanted.draft
    spare = max(0, int(room.gpu_memory * SHARE) - beside)
    moved = min(int((wanted.weights + wanted.kv) * part), spare)
    on_gpu = moved + beside if moved else 0
    memory = wanted.total - moved - (wanted.draft if moved else 0)
    if memory > room.most:
        return None
    overrides = experts_on_cpu(settings.experts_on_cpu) if count else ""
    launch = msgspec.structs.replace(launch, gpu_layers=count, overrides=overrides)
    return Fitted(launch=launch, need=wanted, memory=memory, gpu_memory=on_gpu)


def _layers(wanted: Need, layers: int, asked: str, room: Room) -> int:
    """Return how many layers go to the GPU, -1 for all."""
    if asked != "auto":
        return -1 if asked == "all" else int(asked)
    spare = room.gpu_memory * SHARE - wanted.compute - wanted.draft
    if spare <= 0:
        return 0
    part = spare / (wanted.weights + wanted.kv)
    return -1 if part >= 1 else int(layers * part)
