"""The quantization types on offer: number, size, what they cost in quality. Pure.

`bits` are upstream's measurements on Llama-3.1-8B (llama.cpp's tools/quantize),
as the losses are: good for ordering, not for predicting another model. `edgeserve
quantize compare` measures yours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgeserve.errors import CommandError
from edgeserve.nearest import did_you_mean
from edgeserve.quality import ALIASES, LOSS


@dataclass(frozen=True)
class QuantType:
    """One recipe.

    `ftype` is llama.cpp's number; `base` the tensor type most weights get; `bits` bits
    per weight over a whole model.
    """

    name: str
    ftype: int
    base: str
    bits: float
    note: str
    needs_imatrix: bool = False

    @property
    def divergence(self) -> float | None:
        """Mean KL divergence from the unquantized model, in nats, where published."""
        return LOSS.get(self.name)


WITH_IMATRIX = "needs an importance matrix"

TYPES = {
    kind.name: kind
    for kind in (
        QuantType("F32", 0, "F32", 32.0, "as trained, or larger"),
        QuantType("BF16", 32, "BF16", 16.0, "as trained; slow on old CPUs"),
        QuantType("F16", 1, "F16", 16.0, "as good as trained"),
        QuantType("Q8_0", 7, "Q8_0", 8.50, "as good as F16, half the size"),
        QuantType("Q6_K", 18, "Q6_K", 6.56, "very close to F16"),
        QuantType("Q5_K_M", 17, "Q5_K", 5.70, "very good"),
        QuantType("Q5_K_S", 16, "Q5_K", 5.57, "very good"),
        QuantType("Q5_1", 9, "Q5_1", 5.65, "older; Q5_K_M is better"),
        QuantType("Q5_0", 8, "Q5_0", 5.21, "older; Q5_K_S is better"),
        QuantType("Q4_K_M", 15, "Q4_K", 4.89, "good; the usual choice"),
        QuantType("IQ4_NL", 25, "IQ4_NL", 4.68, "good, fast on ARM"),
        QuantType("Q4_K_S", 14, "Q4_K", 4.67, "good, a little smaller"),
        QuantType("IQ4_XS", 30, "IQ4_XS", 4.46, "good for its size"),
        QuantType("Q4_1", 3, "Q4_1", 4.78, "older; Q4_K_S is better"),
        QuantType("Q4_0", 2, "Q4_0", 4.34, "fastest prompts on ARM and AVX"),
        QuantType("Q3_K_L", 13, "Q3_K", 4.30, "visible loss"),
        QuantType("Q3_K_M", 12, "Q3_K", 4.00, "visible loss"),
        QuantType("IQ3_M", 27, "IQ3_S", 3.76, "visible loss"),
        QuantType("IQ3_S", 26, "IQ3_S", 3.66, "visible loss"),
        QuantType("Q3_K_S", 11, "Q3_K", 3.64, "strong loss"),
        QuantType("IQ3_XS", 22, "IQ3_S", 3.50, "strong loss"),
        QuantType("IQ3_XXS", 23, "IQ3_XXS", 3.25, WITH_IMATRIX, True),
        QuantType("Q2_K", 10, "Q2_K", 3.16, "last resort"),
        QuantType("Q2_K_S", 21, "Q2_K", 2.97, WITH_IMATRIX, True),
        QuantType("IQ2_M", 29, "IQ2_S", 2.93, WITH_IMATRIX, True),
        QuantType("IQ2_S", 28, "IQ2_XS", 2.74, WITH_IMATRIX, True),
        QuantType("IQ2_XS", 20, "IQ2_XS", 2.59, WITH_IMATRIX, True),
        QuantType("IQ2_XXS", 19, "IQ2_XXS", 2.38, WITH_IMATRIX, True),
        QuantType("IQ1_M", 31, "IQ1_M", 2.15, WITH_IMATRIX, True),
        QuantType("IQ1_S", 24, "IQ1_S", 2.00, WITH_IMATRIX, True),
        QuantType("TQ2_0", 37, "TQ2_0", 2.06, "for models trained ternary"),
        QuantType("TQ1_0", 36, "TQ1_0", 1.69, "for models trained ternary"),
        QuantType("MXFP4_MOE", 38, "MXFP4", 4.25, "for mixtures of experts"),
    )
}
"""Every type, by name, the best quality for its size first."""

USUAL = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")
"""What `plan` looks at when no types are named."""

FILE_TYPES = {kind.ftype: kind.name for kind in TYPES.values()}
"""`general.file_type` → name."""


class UnknownType(CommandError):
    """Not a quantization type; the sentence lists them."""

    exit_status = 2

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} is not a quantization type; known: {_known()}"
            f"{did_you_mean(name, TYPES)}"
        )


def _known() -> str:
    return ", ".join(TYPES)


def parse(names: str | Iterable[str]) -> tuple[QuantType, ...]:
    """Read `Q4_K_M,q8_0` as types, each once, in the order given.

    Raises UnknownType.
    """
    words = names.split(",") if isinstance(names, str) else names
    found: dict[str, QuantType] = {}
    for word in words:
        upper = word.strip().upper()
        name = ALIASES.get(upper, upper)
        if name not in TYPES:
            raise UnknownType(word)
        found[name] = TYPES[name]
    return tuple(found.values())
