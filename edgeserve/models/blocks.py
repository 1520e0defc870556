"""GGML blocks: elements and bytes per block of each tensor type. Pure.

Fallback types are those of llama-quant.cpp of llama.cpp 0c1e57098,
`tensor_type_fallback`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Block:
    """One block: `elements` numbers in `bytes` bytes; `id` is GGML's number."""

    id: int
    elements: int
    bytes: int

    @property
    def bits(self) -> float:
        """Bits per weight."""
        return self.bytes * 8 / self.elements


BLOCKS = {
    "F32": Block(0, 1, 4),
    "F16": Block(1, 1, 2),
    "BF16": Block(30, 1, 2),
    "Q8_0": Block(8, 32, 34),
    "Q6_K": Block(14, 256, 210),
    "Q5_K": Block(13, 256, 176),
    "Q5_1": Block(7, 32, 24),
    "Q5_0": Block(6, 32, 22),
    "Q4_K": Block(12, 256, 144),
    "Q4_1": Block(3, 32, 20),
    "Q4_0": Block(2, 32, 18),
    "IQ4_NL": Block(20, 32, 18),
    "IQ4_XS": Block(23, 256, 136),
    "Q3_K": Block(11, 256, 110),
    "IQ3_S": Block(21, 256, 110),
    "IQ3_XXS": Block(18, 256, 98),
    "Q2_K": Block(10, 256, 84),
    "IQ2_S": Block(22, 256, 82),
    "IQ2_XS": Block(17, 256, 74),
    "IQ2_XXS": Block(16, 256, 66),
    "IQ1_M": Block(29, 256, 56),
    "IQ1_S": Block(19, 256, 50),
    "TQ2_0": Block(35, 256, 66),
    "TQ1_0": Block(34, 256, 54),
    "MXFP4": Block(39, 32, 17),
    "NVFP4": Block(40, 64, 36),
    "Q2_0": Block(42, 64, 18),
    "Q1_0": Block(41, 128, 18),
    "Q8_1": Block(9, 32, 40),
    "Q8_K": Block(15, 256, 292),
    "F64": Block(28, 1, 8),
    "I8": Block(24, 1, 1),
    "I16": Block(25, 1, 2),
    "I32": Block(26, 1, 4),
    "I64": Block(27, 1, 8),
}
"""GGML's tensor types, by their names in its log, in capitals."""

NAMES = {block.id: name for name, block in BLOCKS.items()}

UNQUANTIZED = frozenset({"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"})

KV_TYPES = ("f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "f32")
"""Types in which llama.cpp can keep keys and values."""


def tensor_bytes(kind: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a tensor; the first dimension is the row, as in GGUF."""
    block = BLOCKS[kind]
    return prod(shape) // block.elements * block.bytes


def canonical(name: str) -> str | None:
    """Return a name of any case (`q4_K`) as a key of `BLOCKS`; None if unknown."""
    upper = name.upper()
    return upper if upper in BLOCKS else None


SMALLER_BLOCKS = {
    **dict.fromkeys(("Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S"), "IQ4_NL"),
    **dict.fromkeys(("IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
"""Type in blocks of 256 (Q2_0: 64) → the type in blocks of 32 that replaces it."""


def fits(kind: str, row: int) -> bool:
    """Return whether rows of `row` elements divide into whole blocks."""
    return row % BLOCKS[kind].elements == 0


def stored_as(kind: str, row: int) -> str:
    """Return the type that rows of `row` elements get when `kind` is requested."""
    if fits(kind, row):
        return kind
    smaller = SMALLER_BLOCKS.get(kind, kind)
    return smaller if fits(smaller, row) else "F16"
