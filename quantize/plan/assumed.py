"""Assumed types: the type that llama.cpp gives each tensor, by its rules. Pure.

For planning without llama-cpp-python. The rules are data, taken from llama-quant.cpp of
llama.cpp 0c1e57098, `llama_tensor_get_type_impl`. A dry run of the library is right
where they have changed since, or where a model is an exception.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from edgeserve.models.blocks import UNQUANTIZED, fits, stored_as
from edgeserve.models.facts import ModelFacts
from edgeserve.models.header import Tensor
from edgeserve.quantization import QuantType
from quantize.plan.variants import Variant, variant

ASSUMED = (
    "assumed: types of tensors by llama.cpp's rules as of 2026-10, sizes from the"
    " header. With llama-cpp-python (`pip install '.[quantize]'`) llama.cpp itself"
    " gives them"
)

Where = Callable[[int, int], bool]
"""Whether a rule applies to a layer; arguments are its index and their number."""


def _all(_layer: int, _layers: int) -> bool:
    return True


def _more(layer: int, layers: int) -> bool:
    """Return True for the first and last eighth, and every third layer between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _first(share: int) -> Where:
    return lambda layer, layers: layer < layers // share


def _below(count: int) -> Where:
    return lambda layer, _layers: layer < count


def _middle(layer: int, layers: int) -> bool:
    return layers // 8 <= layer < 7 * layers // 8


Rules = Mapping[str, tuple[tuple[Where, str], ...]]

LOW = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS"}
LESS_LOW = {"IQ2_S", "IQ2_M"}

RULES: Mapping[str, Rules] = {
    "Q2_K": {
        "v": ((_all, "Q3_K"),),
        "down": ((_all, "Q3_K"),),
        "out": ((_all, "Q3_K"),),
    },
    "Q2_K_S": {"down": ((_first(8), "Q4_K"),)},
    "Q3_K_M": {
        "v": ((_below(2), "Q5_K"), (_all, "Q4_K")),
        "down": ((_first(16), "Q5_K"), (_all, "Q4_K")),
        "out": ((_all, "Q4_K"),),
    },
    "Q3_K_L": {
        "v": ((_all, "Q5_K"),),
        "down": ((_all, "Q5_K"),),
        "out": ((_all, "Q5_K"),),
    },
    "Q4_K_S": {"v": ((_below(4), "Q5_K"),), "down": ((_first(8), "Q5_K"),)},
    "Q4_K_M": {"v": ((_more, "Q6_K"),), "down": ((_more, "Q6_K"),)},
    "Q5_K_M": {"v": ((_more, "Q6_K"),), "down": ((_more, "Q6_K"),)},
    "IQ4_NL": {"down": ((_first(8), "Q5_K"),)},
    "IQ4_XS": {"down": ((_first(8), "Q5_K"),)},
    "IQ3_M": {
        "v": ((_all, "Q4_K"),),
        "down": ((_first(8), "Q4_K"),),
        "out": ((_all, "Q4_K"),),
    },
    "IQ3_XS": {
        "k": ((_all, "IQ3_XXS"),),
        "q": ((_all, "IQ3_XXS"),),
        "gate": ((_middle, "IQ3_XXS"),),
        "up": ((_middle, "IQ3_XXS"),),
    },
    "IQ3_XXS": {
        "v": ((_all, "IQ3_S"),),
        "k": ((_all, "IQ2_S"),),
        "q": ((_all, "IQ2_S"),),
        "down": ((_first(8), "Q4_K"), (_all, "Q3_K")),
        "out": ((_all, "IQ3_S"),),
    },
    **{
        name: {"v": ((_all, "IQ3_S"),), "down": ((_first(8), "IQ3_S"),),
               "out": ((_all, "IQ3_S"),)}
        for name in LESS_LOW
    },
    **{
        name: {"v": ((_all, "Q2_K"),), "down": ((_first(8), "Q2_K"),)}
        for name in LOW
    },
    **{
        name: {"v": ((_all, "Q2_K"),), "down": ((_first(8), "Q2_K"),),
               "out": ((_all, "IQ2_XXS"),)}
        for name in ("IQ1_S", "IQ1_M")
    },
}  # fmt: skip
"""Recipe → kind of tensor → where it gets which type; elsewhere the recipe's base."""

SHARED_HEADS = {
    **dict.fromkeys(("Q2_K", "Q2_K_S", "IQ3_XXS", "IQ3_XS", "IQ3_S"), "Q4_K"),
    **dict.fromkeys((*LOW, *LESS_LOW), "Q4_K"),
    **dict.fromkeys(("IQ4_NL", "IQ4_XS"), "Q5_K"),
}
"""Type of V where four or more heads share it."""

EMBEDDING = {
    **dict.fromkeys(LOW, "Q2_K"),
    **dict.fromkeys((*LESS_LOW, "IQ3_XXS"), "IQ3_S"),
    **dict.fromkeys(("TQ1_0", "TQ2_0"), "Q4_K"),
}
"""Type of the token embedding where the output has a matrix of its own."""

OUTPUT = dict.fromkeys((*LOW, *LESS_LOW, "IQ3_XXS"), "Q5_K")
"""Type of the output matrix; Q6_K with every other recipe."""

EIGHT_EXPERTS = frozenset(
    (
        "Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M",
        "IQ3_S", "IQ3_M", "IQ4_XS",
    )
)  # fmt: skip
"""Recipes whose attention output is Q5_K in models of eight experts."""

PARTS = {
    "attn_qkv.weight": "v", "attn_kv_b.weight": "v", "attn_v.weight": "v",
    "attn_k.weight": "k", "attn_q.weight": "q", "attn_output.weight": "out",
    "ffn_up": "up", "ffn_gate": "gate", "ffn_down": "down",
}  # fmt: skip
"""Part of a tensor's name → its kind in the rules."""

KEPT = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid|altup|laurel"
    r"|per_layer_model_proj|^position_embd\.weight$|^token_types\.weight$|ssm_conv1d"
    r"|shortconv\.conv\.weight|indexer\.[kq]_proj\.weight|time_mix_(first|lerp_fused)"
    r"|time_mix_(w[0-2]|v[0-2]|a[0-2]|g[12]|decay_w[12])\.weight|attn_rel_b\.weight"
    r"|\.position_embd|sam\.(pos_embd|neck\.|net_)|\.rel_pos|\.patch_(embd|merger)"
    r"|a\.rvq\.codebook|mm\.a\.code_embd"
)
"""Names of tensors that llama.cpp does not quantize."""

_LAYER = re.compile(r"blk\.(\d+)\.")


def assumed(facts: ModelFacts, kind: QuantType) -> Variant:
    """Plan one variant without llama.cpp."""
    wanted = _TypeRules(facts, kind)
    kinds: dict[str, str] = {}
    misfits: dict[str, str] = {}
    for tensor in facts.tensors:
        asked = wanted.of(tensor)
        kinds[tensor.name] = stored_as(asked, tensor.row)
        if not fits(asked, tensor.row):
            misfits[tensor.name] = asked
    return variant(facts, kind, kinds, misfits)


class _TypeRules:
    """The type that a recipe asks for, for each tensor of a model."""

    def __init__(self, facts: ModelFacts, kind: QuantType) -> None:
        self._facts = facts
        self._kind = kind
        self._tied = all(each.name != "output.weight" for each in facts.tensors)
        values = [each.name for each in facts.tensors if _part(each.name) == "v"]
        self._values = sorted(values, key=lambda name: (_layer(name), name))

    def of(self, tensor: Tensor) -> str:
        name, base = tensor.name, self._kind.base
        if not _quantized(tensor):
            return tensor.kind
        if base in UNQUANTIZED:
            return base
        embedding = name in {"token_embd.weight", "per_layer_token_embd.weight"}
        if name == "output.weight" or (embedding and self._tied):
            return self._output(tensor)
        if self._kind.name == "MXFP4_MOE":
            return base if len(tensor.shape) > 2 else "Q8_0"
        if embedding:
            return EMBEDDING.get(self._kind.name, base)
        return self._inner(name, base)

    def _output(self, tensor: Tensor) -> str:
        if self._kind.base in {"Q8_0", "MXFP4"} or not fits(
            self._kind.base, tensor.row
        ):
            return "Q8_0"
        return OUTPUT.get(self._kind.name, "Q6_K")

    def _inner(self, name: str, base: str) -> str:
        part, recipe = _part(name), self._kind.name
        if self._facts.experts == 8 and (found := self._of_eight(part)):
            return found
        if part == "v" and self._shared() and recipe in SHARED_HEADS:
            return SHARED_HEADS[recipe]
        layer, layers = _layer(name), self._facts.layers
        if part == "v":
            layer, layers = self._values.index(name), len(self._values)
        for where, kind in RULES.get(recipe, {}).get(part, ()):
            if where(layer, layers):
                return kind
        return base

    def _of_eight(self, part: str) -> str | None:
        low = self._kind.name in LOW | LESS_LOW
        if part in {"v", "k"}:
            return "Q4_K" if low else "Q8_0"
        if part == "out" and (low or self._kind.name in EIGHT_EXPERTS):
            return "Q5_K"
        return None

    def _shared(self) -> bool:
        """Return whether four or more heads share keys and values."""
        kv = self._facts.kv_heads[0] if self._facts.kv_heads else 0
        shared = kv > 0 and self._facts.heads // kv >= 4
        low = self._kind.name in LOW | LESS_LOW
        return shared or (low and self._facts.experts >= 4)


def _quantized(tensor: Tensor) -> bool:
    """Return whether llama.cpp quantizes a tensor: matrices, except those in KEPT."""
    matrix = len(tensor.shape) > 1 and tensor.name.endswith("weight")
    return matrix and not KEPT.search(tensor.name)


def _part(name: str) -> str:
    found = (kind for part, kind in PARTS.items() if part in name)
    return next(found, "")


def _layer(name: str) -> int:
    found = _LAYER.search(name)
    return int(found[1]) if found else 0
