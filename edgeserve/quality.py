"""How much a variant has lost by quantization, told by its label. Pure.

The figures are upstream's: mean KL divergence from the unquantized Llama-3-8B, in nats
(llama.cpp, tools/perplexity/README.md). They are good for ordering the types, not for
predicting another model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgeserve.errors import BadRequest

FLOOR_HEADER = "x-edgeserve-min-quality"
"""Client to balancer: the least type that may answer, e.g. `Q4_K_M`."""

LOSS = {
    "F32": 0.0,
    "BF16": 0.0,
    "F16": 0.0006,
    "Q8_0": 0.0014,
    "Q6_K": 0.0055,
    "Q5_K_M": 0.0108,
    "Q5_K_S": 0.0166,
    "Q5_1": 0.0180,
    "Q5_0": 0.0222,
    "Q4_K_M": 0.0313,
    "IQ4_NL": 0.0357,
    "IQ4_XS": 0.0363,
    "Q4_K_S": 0.0431,
    "Q4_1": 0.0717,
    "Q4_0": 0.0719,
    "Q3_K_L": 0.0872,
    "Q3_K_M": 0.1019,
    "IQ3_M": 0.1025,
    "IQ3_S": 0.1113,
    "IQ3_XS": 0.1387,
    "IQ3_XXS": 0.1836,
    "Q3_K_S": 0.2282,
    "IQ2_M": 0.3260,
    "Q2_K_S": 0.4034,
    "IQ2_S": 0.4392,
    "Q2_K": 0.4451,
    "IQ2_XS": 0.5463,
    "IQ2_XXS": 0.8120,
    "IQ1_M": 1.3931,
    "IQ1_S": 2.2546,
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
    """Return what a type or a variant's label loses; None where nobody knows.

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

    A label that nobody knows is not: a floor is a promise.
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
            f"{FLOOR_HEADER} is {given[:80]!r}; it must be one of {_TYPES}"
        )
    return given


_TYPES = ", ".join(LOSS)
