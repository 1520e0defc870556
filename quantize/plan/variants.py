"""Variants: which ones a model can have, and how large each is. Pure.

The types that tensors get come from llama.cpp's own dry run; nothing here guesses them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgeserve.models.blocks import tensor_bytes
from edgeserve.models.facts import ModelFacts
from edgeserve.models.memory import Need, need
from edgeserve.quantization import QuantType
from quantize.plan.machines import Machine


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One type applied to one model: what every tensor really becomes.

    `kinds` maps tensor to type. `misfits` maps the tensors whose rows do not divide
    into the blocks of the recipe's type to that type.
    """

    type: QuantType
    kinds: Mapping[str, str]
    weight_bytes: int
    file_bytes: int
    parameters: int
    misfits: Mapping[str, str]

    @property
    def bits(self) -> float:
        """Bits per weight, as it really becomes."""
        return self.weight_bytes * 8 / self.parameters

    @property
    def shares(self) -> Mapping[str, int]:
        """Tensor type → how many tensors."""
        return dict(Counter(self.kinds.values()).most_common())

    @property
    def remark(self) -> str:
        """Say in a sentence where the shape defeats the recipe; empty if nowhere."""
        if not self.misfits:
            return ""
        became = Counter(self.kinds[name] for name in self.misfits)
        asked = " or ".join(sorted(set(self.misfits.values())))
        instead = ", ".join(f"{count} {kind}" for kind, count in became.most_common())
        return (
            f"{len(self.misfits)} of {len(self.kinds)} tensors have rows that do not"
            f" divide into blocks of {asked}; they become {instead}"
        )


def variant(
    facts: ModelFacts,
    kind: QuantType,
    kinds: Mapping[str, str],
    misfits: Mapping[str, str],
) -> Variant:
    """Compute the size of a variant from the types its tensors get."""
    sizes = [tensor_bytes(kinds[each.name], each.shape) for each in facts.tensors]
    header = facts.file_bytes - sum(_padded(each.bytes) for each in facts.tensors)
    return Variant(
        type=kind,
        kinds=dict(kinds),
        weight_bytes=sum(sizes),
        file_bytes=sum(map(_padded, sizes)) + max(header, 0),
        parameters=facts.parameters,
        misfits=dict(misfits),
    )


ALIGNMENT = 32
"""GGUF's padding between tensors, in bytes, as llama.cpp's quantizer writes it."""


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a model would be run: `context` is tokens per slot."""

    slots: int = 1
    context: int = 4096
    kv_type: str = "f16"
    ubatch: int = 512


@dataclass(frozen=True)
class Verdict:
    """One variant, what serving it needs, and which machines can."""

    variant: Variant
    need: Need
    fits: Mapping[str, bool]


def judge(
    facts: ModelFacts,
    variants: Iterable[Variant],
    machines: Sequence[Machine],
    serving: Serving,
) -> tuple[Verdict, ...]:
    """Say for each variant which machines can serve it."""
    verdicts = list[Verdict]()
    for each in variants:
        total = need(
            facts,
            slots=serving.slots,
            context=serving.context,
            kv_type=serving.kv_type,
            ubatch=serving.ubatch,
            weights=each.weight_bytes,
        )
        fitting = {place.name: total.total <= place.usable for place in machines}
        verdicts.append(Verdict(each, total, fitting))
    return tuple(verdicts)


def best_fit(verdicts: Iterable[Verdict], machine: str) -> Variant | None:
    """Return the variant that loses least among those that fit the machine."""
    fitting = [verdict.variant for verdict in verdicts if verdict.fits[machine]]
    known = [each for each in fitting if each.type.divergence is not None]
    return min(known, key=_loss, default=None)


def _loss(each: Variant) -> tuple[float, int]:
    assert each.type.divergence is not None  # noqa: S101 - filtered by the caller
    return each.type.divergence, each.weight_bytes
