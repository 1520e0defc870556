"""Variants: the tensor types of a quantized model, its size, and where it fits. Pure.

The types of the tensors are inputs: from llama.cpp's dry run, or assumed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgeserve.models.blocks import tensor_bytes
from edgeserve.models.facts import ModelFacts
from edgeserve.models.memory import Need
from edgeserve.quantization import QuantType
from quantize.plan.machines import Machine


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One recipe applied to one model.

    `kinds` maps each tensor to the type it gets. `misfits` maps tensors whose rows do
    not divide into the blocks of the recipe's type to that type.
    """

    type: QuantType
    kinds: Mapping[str, str]
    weight_bytes: int
    file_bytes: int
    parameters: int
    misfits: Mapping[str, str]

    @property
    def bits(self) -> float:
        """Bits per weight, over all tensors."""
        return self.weight_bytes * 8 / self.parameters

    @property
    def shares(self) -> Mapping[str, int]:
        """Tensor type → number of tensors."""
        return dict(Counter(self.kinds.values()).most_common())

    @property
    def remark(self) -> str:
        """Return a sentence on tensors that do not fit the recipe; empty if none."""
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
    """Compute the size of a variant from the types of its tensors."""
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
"""Alignment of tensors in bytes, as llama.cpp's quantizer writes it."""


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Verdict:
    """One variant, the memory to serve it, and whether it fits each machine."""

    variant: Variant
    need: Need
    fits: Mapping[str, bool]


def judge(
    variants: Iterable[Variant],
    machines: Sequence[Machine],
    needed: Callable[[int], Need],
) -> tuple[Verdict, ...]:
    """Compute for each variant the memory it needs and the machines it fits.

    `needed` returns the memory to serve a model with so many bytes of weights.
    """
    needs = [(each, needed(each.weight_bytes)) for each in variants]
    return tuple(
        Verdict(each, need, {m.name: need.total <= m.usable for m in machines})
        for each, need in needs
    )


def best_fit(verdicts: Iterable[Verdict], machine: str) -> Variant | None:
    """Return the variant of least known loss among those that fit the machine."""
    fitting = [verdict.variant for verdict in verdicts if verdict.fits[machine]]
    known = [
        (each.type.divergence, each.weight_bytes, each)
        for each in fitting
        if each.type.divergence is not None
    ]
    return min(known, key=lambda each: each[:2])[2] if known else None
