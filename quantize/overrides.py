"""Tensor overrides: types chosen by tensor name, and llama.cpp's dry run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgeserve.errors import CommandError
from edgeserve.models.blocks import BLOCKS, canonical
from edgeserve.models.facts import ModelFacts
from edgeserve.quantization import QuantType
from quantize.plan.variants import Variant, variant
from quantize.worker.child import events
from quantize.worker.messages import Quantize, TensorEnded, TensorMisfit


class BadOverride(CommandError):
    """A `--tensor-type` is wrong; the message says why."""

    exit_status = 2


@dataclass(frozen=True)
class Override:
    """Tensors whose names contain a match of `pattern` become `kind`."""

    pattern: str
    kind: str

    def __str__(self) -> str:
        return f"{self.pattern}={self.kind}"


def parse_override(text: str, tensors: Iterable[str]) -> Override:
    """Parse `REGEX=TYPE`; the pattern must match a tensor. Raises BadOverride."""
    pattern, equals, word = text.rpartition("=")
    if not equals or not pattern:
        raise BadOverride(f"{text!r} is not REGEX=TYPE, such as attn_v=Q8_0")
    kind = canonical(word)
    if kind is None:
        known = ", ".join(BLOCKS)
        raise BadOverride(f"{word!r} is not a tensor type; known: {known}")
    try:
        matches = re.compile(pattern).search
    except re.error as error:
        raise BadOverride(f"{pattern!r} is not a regular expression: {error}") from None
    if not any(matches(name) for name in tensors):
        raise BadOverride(f"{pattern!r} matches no tensor of this model")
    return Override(pattern, kind)


def pairs(overrides: Iterable[Override]) -> tuple[tuple[str, int], ...]:
    """Return each pattern with GGML's number of the type, as for a job."""
    return tuple((each.pattern, BLOCKS[each.kind].id) for each in overrides)


def dry_run(
    facts: ModelFacts,
    kind: QuantType,
    overrides: Iterable[Override] = (),
    imatrix: Path | None = None,
) -> Variant:
    """Plan one variant by a dry run. Raises QuantizerFailed if llama.cpp refuses.

    With an importance matrix llama.cpp chooses other types for some tensors.
    """
    job = Quantize(
        source=str(facts.path),
        target="",
        ftype=kind.ftype,
        dry_run=True,
        allow_requantize=True,
        overrides=pairs(overrides),
        imatrix=str(imatrix) if imatrix else None,
    )
    kinds: dict[str, str] = {}
    misfits: dict[str, str] = {}
    with events(job) as stream:
        for event in stream:
            match event:
                case TensorEnded(tensor, becomes):
                    kinds[tensor] = becomes
                case TensorMisfit(tensor, asked):
                    misfits[tensor] = asked
                case _:
                    pass
    return variant(facts, kind, kinds, misfits)
