"""Ask llama.cpp, without writing anything, what a type would make of every tensor."""

from __future__ import annotations

from pathlib import Path

from quantize.child import events
from quantize.facts import ModelFacts
from quantize.jobs import Quantize, TensorEnded, TensorMisfit
from quantize.plan import Variant, variant
from quantize.types import QuantType

Overrides = tuple[tuple[str, int], ...]


def dry_run(
    facts: ModelFacts,
    kind: QuantType,
    overrides: Overrides = (),
    imatrix: Path | None = None,
) -> Variant:
    """Plan one variant. Raises QuantizerFailed where llama.cpp cannot make it.

    With an importance matrix llama.cpp chooses other types for some tensors.
    """
    job = Quantize(
        source=str(facts.path),
        target="",
        ftype=kind.ftype,
        dry_run=True,
        allow_requantize=True,
        overrides=overrides,
        imatrix=str(imatrix) if imatrix else None,
    )
    kinds: dict[str, str] = {}
    misfits: dict[str, str] = {}
    with events(job) as heard:
        for event in heard:
            match event:
                case TensorEnded(tensor, becomes):
                    kinds[tensor] = becomes
                case TensorMisfit(tensor, asked):
                    misfits[tensor] = asked
                case _:
                    pass
    return variant(facts, kind, kinds, misfits)
