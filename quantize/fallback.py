"""What llama.cpp stores where a row does not divide into a type's blocks. Pure.

Read in llama-quant.cpp of llama.cpp 0c1e57098, `tensor_type_fallback`.
"""

from __future__ import annotations

from quantize.blocks import BLOCKS

SMALLER_BLOCKS = {
    "Q2_0": "Q4_0",
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "TQ1_0": "Q4_0",
    "TQ2_0": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    "IQ1_S": "IQ4_NL",
    "IQ1_M": "IQ4_NL",
    "IQ2_XXS": "IQ4_NL",
    "IQ2_XS": "IQ4_NL",
    "IQ2_S": "IQ4_NL",
    "IQ3_XXS": "IQ4_NL",
    "IQ3_S": "IQ4_NL",
    "IQ4_XS": "IQ4_NL",
}
"""Type in blocks of 256 (Q2_0: 64) → the type in blocks of 32 that replaces it."""


def fits(kind: str, row: int) -> bool:
    """Say whether rows of `row` elements divide into whole blocks."""
    return row % BLOCKS[kind].elements == 0


def stored_as(kind: str, row: int) -> str:
    """Return the type that rows of `row` elements really get when `kind` is asked."""
    if fits(kind, row):
        return kind
    smaller = SMALLER_BLOCKS.get(kind, kind)
    return smaller if fits(smaller, row) else "F16"
