"""Typical models: shapes of published models, so that they can be planned unfetched.

Pure. The sizes that a question such as `14b:Q4` names are made from the nearest shape.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgeserve.models.facts import ModelFacts
from edgeserve.models.header import Tensor

Use = Literal["chat", "coding", "embeddings"]

APACHE = "Apache-2.0"

BILLION = 10**9


@dataclass(frozen=True, kw_only=True)
class TypicalModel:
    """A published model: its shape, where its GGUFs are, and the original weights.

    `labels` are the variants to consider, the best quality first. `head` is the length
    of a head where that is not `embedding / heads`.
    """

    name: str
    use: Use = "chat"
    repository: str = ""
    original: str = ""
    licence: str = APACHE
    labels: tuple[str, ...] = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
    layers: int
    embedding: int
    feed_forward: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int = 32768
    head: int = 0
    tied: bool = False
    experts: int = 0
    experts_used: int = 0

    def facts(self) -> ModelFacts:
        """Return the facts of its F16 file, which need not exist."""
        tensors, head = tuple(_tensors(self)), self.head or self.embedding // self.heads
        path = Path(f"{self.name}.F16.gguf")
        return ModelFacts(
            path=path,
            files=(path,),
            file_bytes=sum(each.bytes for each in tensors),
            architecture="llama",
            name=self.name,
            file_type="F16",
            context=self.context,
            layers=self.layers,
            embedding=self.embedding,
            feed_forward=self.feed_forward,
            heads=self.heads,
            kv_heads=(self.kv_heads,) * self.layers,
            key_length=head,
            value_length=head,
            vocabulary=self.vocabulary,
            experts=self.experts,
            dequantized_from=None,
            tensors=tensors,
            metadata={"llama.expert_used_count": self.experts_used},
        )


def _tensors(model: TypicalModel) -> Iterator[Tensor]:
    wide, hidden, tokens = model.embedding, model.feed_forward, model.vocabulary
    head = model.head or wide // model.heads
    inner, kv = head * model.heads, head * model.kv_heads
    yield Tensor("token_embd.weight", "F16", (wide, tokens), 0)
    for n in range(model.layers):
        parts: dict[str, tuple[int, ...]] = {
            "attn_q": (wide, inner),
            "attn_k": (wide, kv),
            "attn_v": (wide, kv),
            "attn_output": (inner, wide),
        }
        many = (model.experts,) if model.experts else ()
        end = "_exps" if many else ""
        parts |= {f"ffn_{each}{end}": (wide, hidden, *many) for each in ("gate", "up")}
        parts[f"ffn_down{end}"] = (hidden, wide, *many)
        for name, shape in parts.items():
            yield Tensor(f"blk.{n}.{name}.weight", "F16", shape, 0)
    if not model.tied:
        yield Tensor("output.weight", "F16", (wide, tokens), 0)


def _qwen(size: str, *, licence: str = APACHE, **shape: int) -> Iterator[TypicalModel]:
    """Yield the chat and the coding model of one size; both have the same shape."""
    small = size in {"0.5B", "1.5B", "3B"}
    uses: tuple[tuple[Use, str], ...] = (
        ("chat", "Qwen2.5"),
        ("coding", "Qwen2.5-Coder"),
    )
    for use, series in uses:
        if use == "coding" and size == "72B":
            continue
        original = f"Qwen/{series}-{size}-Instruct"
        yield TypicalModel(
            name=f"{series}-{size}-Instruct".lower(),
            use=use,
            repository=f"{original}-GGUF",
            original=original,
            licence=licence,
            tied=small,
            vocabulary=151936 if small else 152064,
            layers=shape["layers"],
            embedding=shape["embedding"],
            feed_forward=shape["feed_forward"],
            heads=shape["heads"],
            kv_heads=shape["kv_heads"],
        )


RESEARCH = "Qwen Research, not for commercial use"

MODELS = (
    TypicalModel(
        name="smollm2-135m-instruct",
        labels=("Q4_1",),
        layers=30, embedding=576, feed_forward=1536, heads=9, kv_heads=3,
        vocabulary=49152, context=8192, tied=True,
    ),
    *_qwen("0.5B", layers=24, embedding=896, feed_forward=4864, heads=14, kv_heads=2),
    *_qwen("1.5B", layers=28, embedding=1536, feed_forward=8960, heads=12, kv_heads=2),
    *_qwen("3B", licence=RESEARCH, layers=36, embedding=2048, feed_forward=11008,
           heads=16, kv_heads=2),
    *_qwen("7B", layers=28, embedding=3584, feed_forward=18944, heads=28, kv_heads=4),
    *_qwen("14B", layers=48, embedding=5120, feed_forward=13824, heads=40, kv_heads=8),
    TypicalModel(
        name="qwen3-30b-a3b",
        repository="Qwen/Qwen3-30B-A3B-GGUF",
        original="Qwen/Qwen3-30B-A3B",
        layers=48, embedding=2048, feed_forward=768, heads=32, kv_heads=4, head=128,
        vocabulary=151936, experts=128, experts_used=8,
    ),
    *_qwen("32B", layers=64, embedding=5120, feed_forward=27648, heads=40, kv_heads=8),
    *_qwen("72B", licence="Qwen", layers=80, embedding=8192, feed_forward=29568,
           heads=64, kv_heads=8),
    TypicalModel(
        name="nomic-embed-text-v1.5",
        use="embeddings",
        repository="nomic-ai/nomic-embed-text-v1.5-GGUF",
        labels=("F16", "Q8_0"),
        layers=12, embedding=768, feed_forward=3072, heads=12, kv_heads=12,
        vocabulary=30522, context=2048, tied=True,
    ),
    TypicalModel(
        name="qwen3-embedding-0.6b",
        use="embeddings",
        repository="Qwen/Qwen3-Embedding-0.6B-GGUF",
        original="Qwen/Qwen3-Embedding-0.6B",
        labels=("F16", "Q8_0"),
        layers=28, embedding=1024, feed_forward=3072, heads=16, kv_heads=8, head=128,
        vocabulary=151669, tied=True,
    ),
)  # fmt: skip
"""Shapes are of the models' own `config.json`."""

SIZES = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
"""Variants of a size without a name."""

NEARLY = 0.1
"""How far, as a share, a model may be from its nominal size: Qwen's 7B has 7.6."""

_SIZE = re.compile(r"(\d{1,4}(?:\.\d{1,3})?)b", re.IGNORECASE)


def parameters(model: TypicalModel) -> int:
    """Return the number of weights."""
    return sum(each.elements for each in _tensors(model))


def of_size(text: str) -> TypicalModel | None:
    """Return a model of a size such as `7b`; None if it is no size.

    That is a published one of nearly the size, else the nearest shape with as many
    layers as make it.
    """
    found = _SIZE.fullmatch(text)
    if not found or not float(found[1]):
        return None
    wanted = float(found[1]) * BILLION
    dense = [m for m in MODELS if m.use == "chat" and not m.experts]
    near = min(dense, key=lambda m: abs(math.log(parameters(m) / wanted)))
    if abs(math.log(parameters(near) / wanted)) < NEARLY:
        return replace(near, labels=SIZES if near.repository else near.labels)
    return replace(
        near,
        name=f"llama-{text.lower()}",
        repository="",
        original="",
        labels=SIZES,
        layers=max(1, round(near.layers * _of_layers(near, wanted))),
    )


def _of_layers(model: TypicalModel, wanted: float) -> float:
    """Return by how much its layers have to grow to give so many weights."""
    outside = sum(e.elements for e in _tensors(model) if not e.name.startswith("blk."))
    return max(wanted - outside, 0.0) / (parameters(model) - outside)
