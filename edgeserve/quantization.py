"""Quantization types: number, size, and how much quality each one loses. Pure.

The figures are upstream's: mean KL divergence from the unquantized Llama-3-8B, in nats
(llama.cpp, tools/perplexity/README.md), and bits per weight of Llama-3.1-8B
(tools/quantize). They are good for ordering the types, not for predicting another
model; `edgeserve quantize compare` measures yours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgeserve.errors import BadRequest, CommandError
from edgeserve.suggestions import did_you_mean

FLOOR_HEADER = "x-edgeserve-min-quality"
"""Client to balancer: the least type that may answer, e.g. `Q4_K_M`."""


@dataclass(frozen=True)
class QuantType:
    """One recipe.

    `ftype` is llama.cpp's number; `base` the tensor type most weights get; `bits` bits
    per weight over a whole model; `divergence` the mean KL divergence from the
    unquantized model, in nats, where it is published.
    """

    name: str
    ftype: int
    base: str
    bits: float
    divergence: float | None
    note: str

    @property
    def needs_imatrix(self) -> bool:
        """Whether it can be made with an importance matrix only."""
        return self.note == WITH_IMATRIX


WITH_IMATRIX = "needs an importance matrix"

TYPES = {
    kind.name: kind
    for kind in (
        QuantType("F32", 0, "F32", 32.0, 0.0, "as trained, or larger"),
        QuantType("BF16", 32, "BF16", 16.0, 0.0, "as trained; slow on old CPUs"),
        QuantType("F16", 1, "F16", 16.0, 0.0006, "as good as trained"),
        QuantType("Q8_0", 7, "Q8_0", 8.50, 0.0014, "as good as F16, half the size"),
        QuantType("Q6_K", 18, "Q6_K", 6.56, 0.0055, "very close to F16"),
        QuantType("Q5_K_M", 17, "Q5_K", 5.70, 0.0108, "very good"),
        QuantType("Q5_K_S", 16, "Q5_K", 5.57, 0.0166, "very good"),
        QuantType("Q5_1", 9, "Q5_1", 5.65, 0.0180, "older; Q5_K_M is better"),
        QuantType("Q5_0", 8, "Q5_0", 5.21, 0.0222, "older; Q5_K_S is better"),
        QuantType("Q4_K_M", 15, "Q4_K", 4.89, 0.0313, "good; the usual choice"),
        QuantType("IQ4_NL", 25, "IQ4_NL", 4.68, 0.0357, "good, fast on ARM"),
        QuantType("Q4_K_S", 14, "Q4_K", 4.67, 0.0431, "good, a little smaller"),
        QuantType("IQ4_XS", 30, "IQ4_XS", 4.46, 0.0363, "good for its size"),
        QuantType("Q4_1", 3, "Q4_1", 4.78, 0.0717, "older; Q4_K_S is better"),
        QuantType("Q4_0", 2, "Q4_0", 4.34, 0.0719, "fastest prompts on ARM and AVX"),
        QuantType("Q3_K_L", 13, "Q3_K", 4.30, 0.0872, "visible loss"),
        QuantType("Q3_K_M", 12, "Q3_K", 4.00, 0.1019, "visible loss"),
        QuantType("IQ3_M", 27, "IQ3_S", 3.76, 0.1025, "visible loss"),
        QuantType("IQ3_S", 26, "IQ3_S", 3.66, 0.1113, "visible loss"),
        QuantType("Q3_K_S", 11, "Q3_K", 3.64, 0.2282, "strong loss"),
        QuantType("IQ3_XS", 22, "IQ3_S", 3.50, 0.1387, "strong loss"),
        QuantType("IQ3_XXS", 23, "IQ3_XXS", 3.25, 0.1836, WITH_IMATRIX),
        QuantType("Q2_K", 10, "Q2_K", 3.16, 0.4451, "last resort"),
        QuantType("Q2_K_S", 21, "Q2_K", 2.97, 0.4034, WITH_IMATRIX),
        QuantType("IQ2_M", 29, "IQ2_S", 2.93, 0.3260, WITH_IMATRIX),
        QuantType("IQ2_S", 28, "IQ2_XS", 2.74, 0.4392, WITH_IMATRIX),
        QuantType("IQ2_XS", 20, "IQ2_XS", 2.59, 0.5463, WITH_IMATRIX),
        QuantType("IQ2_XXS", 19, "IQ2_XXS", 2.38, 0.8120, WITH_IMATRIX),
        QuantType("IQ1_M", 31, "IQ1_M", 2.15, 1.3931, WITH_IMATRIX),
        QuantType("IQ1_S", 24, "IQ1_S", 2.00, 2.2546, WITH_IMATRIX),
        QuantType("TQ2_0", 37, "TQ2_0", 2.06, None, "for models trained ternary"),
        QuantType("TQ1_0", 36, "TQ1_0", 1.69, None, "for models trained ternary"),
        QuantType("MXFP4_MOE", 38, "MXFP4", 4.25, None, "for mixtures of experts"),
    )
}
"""Every type, by name, the best quality for its size first."""

USUAL = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")
"""What `plan` looks at when no types are named."""

FILE_TYPES = {kind.ftype: kind.name for kind in TYPES.values()}
"""`general.file_type` → name."""

LOSS = {
    kind.name: kind.divergence
    for kind in sorted(TYPES.values(), key=lambda kind: kind.divergence or 0.0)
    if kind.divergence is not None
}
"""Type → loss, the best first."""

ALIASES = {
    "FP16": "F16",
    "FP32": "F32",
    "Q3_K": "Q3_K_M",
    "Q4_K": "Q4_K_M",
    "Q5_K": "Q5_K_M",
}

_SIZE = re.compile(r"_(?:XXL|XL|L|M|S)$")


def loss(label: str) -> float | None:
    """Return what a type or a variant's label loses; None where it is unknown.

    Makers' own recipes, such as `UD-Q4_K_XL` or `Q6_K_L`, count as the type they are
    named after.
    """
    name = label.strip().upper().removeprefix("UD-")
    for each in (name, _SIZE.sub("", name)):
        found = ALIASES.get(each, each)
        if found in LOSS:
            return LOSS[found]
    return None


def at_least(label: str, floor: str) -> bool:
    """Whether a variant is as good as the type `floor`, or better.

    An unknown label is not: a floor is a promise.
    """
    has, wanted = loss(label), loss(floor)
    return has is not None and wanted is not None and has <= wanted


def serves(variant: str, floor: str) -> bool:
    """Whether `model:LABEL` may answer a request with that floor; any may without."""
    return not floor or at_least(variant.partition(":")[2], floor)


def floor_asked(received: Mapping[str, str]) -> str:
    """Read a request's floor, "" where it has none. Raises BadRequest."""
    given = received.get(FLOOR_HEADER, "").strip()
    if given and loss(given) is None:
        raise BadRequest(
            f"{FLOOR_HEADER} is {given[:80]!r}; it must be one of {', '.join(LOSS)}"
        )
    return given


class UnknownType(CommandError):
    """Not a quantization type; the sentence lists them."""

    exit_status = 2

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} is not a quantization type; known: {', '.join(TYPES)}"
            f"{did_you_mean(name, TYPES)}"
        )


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
