"""Memory need: compute the memory to serve a model. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeserve.models.blocks import BLOCKS
from edgeserve.models.facts import ModelFacts
from edgeserve.orders.groups import LayeredModel

KIB, MIB, GIB = 2**10, 2**20, 2**30

PROCESS = 64 * MIB
"""llama-server without a model: code, vocabulary, stacks of threads, HTTP."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Memory to serve a model: bytes by purpose, and the settings they depend on.

    `context` is tokens per slot, `ubatch` tokens per computation. `cache` is the
    prompt cache of llama.cpp, for conversations that have lost their slot; `draft` is
    all that a draft model takes.
    """

    weights: int
    kv: int
    compute: int
    slots: int
    context: int
    kv_type: str
    ubatch: int
    process: int = PROCESS
    cache: int = 0
    draft: int = 0

    @property
    def total(self) -> int:
        """Bytes in all."""
        beside = self.process + self.cache + self.draft
        return self.weights + self.kv + self.compute + beside

    def arithmetic(self) -> str:
        """Return the sum with its terms, as text."""
        cache = f" + prompt cache {size(self.cache)}" if self.cache else ""
        draft = f" + draft model {size(self.draft)}" if self.draft else ""
        return (
            f"{size(self.total)} = weights {size(self.weights)}"
            f" + KV {size(self.kv)} ({self.slots} x {self.context:,} tokens,"
            f" {self.kv_type})"
            f" + compute {size(self.compute)} (batch {self.ubatch})"
            f" + process {size(self.process)}{cache}{draft}"
        )


def need(
    facts: ModelFacts,
    *,
    slots: int,
    context: int,
    kv_type: str = "f16",
    ubatch: int = 512,
    weights: int | None = None,
    cache: int = 0,
    draft: int = 0,
) -> Need:
    """Compute the memory need; for a variant, `weights` replaces the file's bytes."""
    return Need(
        weights=facts.weight_bytes if weights is None else weights,
        kv=kv_bytes(facts, slots * context, kv_type),
        compute=compute_bytes(facts, slots * context, ubatch),
        slots=slots,
        context=context,
        kv_type=kv_type,
        ubatch=ubatch,
        cache=cache,
        draft=draft,
    )


def kv_bytes(facts: ModelFacts, tokens: int, kv_type: str = "f16") -> int:
    """Return the bytes of keys and values of `tokens` tokens over all layers.

    This is an upper bound for sliding windows, MLA and recurrent layers.
    """
    per_head = facts.key_length + facts.value_length
    elements = tokens * sum(facts.kv_heads) * per_head
    return int(elements * BLOCKS[kv_type.upper()].bits / 8)


def compute_bytes(facts: ModelFacts, tokens: int, ubatch: int) -> int:
    """Return the bytes of one computation's intermediate results, in F32.

    They are the logits of a whole batch or the widest layer, and the attention mask in
    F16, for flash attention. llama-fit-params gives 98 MiB for SmolLM2 at batch 512 and
    context 8192 (this: 112), 12 MiB at batch 64 (14).
    """
    widest = facts.vocabulary + 3 * facts.embedding
    layer = 3 * facts.feed_forward + 4 * facts.embedding
    return ubatch * (4 * max(widest, layer) + 2 * tokens)


LAYER = re.compile(r"blk\.\d+\.")


def layered(facts: ModelFacts) -> LayeredModel | None:
    """Return what a group has to know of a model; None where it has no layers."""
    if not facts.layers:
        return None
    inside = sum(each.bytes for each in facts.tensors if LAYER.match(each.name))
    return LayeredModel(
        layers=facts.layers,
        layer_bytes=inside // facts.layers,
        rest_bytes=facts.weight_bytes - inside,
        kv_bytes=kv_bytes(facts, 1),
        hidden_bytes=4 * facts.embedding,
        context=facts.context,
    )


_UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": 2**40}


def parse_size(text: str) -> int:
    """Parse `4GiB`, `4G`, `900MiB` or plain bytes. Raises ValueError."""
    found = re.fullmatch(
        r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE
    )
    if not found:
        raise ValueError(f"{text!r} is not a size such as 4GiB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def size(count: float) -> str:
    """Format bytes as text: `4.58 GiB`."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count >= unit:
            form = ".3g" if count < 1000 * unit else ",.0f"
            return f"{count / unit:{form}} {name}"
    return f"{count:.0f} B"
