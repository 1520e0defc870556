"""Models by their weight, for tests that only do arithmetic."""

from __future__ import annotations

from pathlib import Path

from edgeserve.models.blocks import tensor_bytes
from edgeserve.models.facts import ModelFacts
from edgeserve.models.header import Tensor
from node.engines.base import EngineSpec
from node.planning.plan import Plan

GIB = 2**30
ROW = 1024


def facts(
    gib: float,
    *,
    kind: str = "F32",
    context: int = 32768,
    layers: int = 32,
    kv_heads: int = 8,
    head: int = 128,
    vocabulary: int = 32000,
) -> ModelFacts:
    """A Llama of this weight with grouped heads."""
    rows = int(gib * GIB / tensor_bytes(kind, (ROW, 1)))
    tensor = Tensor("w", kind, (ROW, rows), 0)
    return ModelFacts(
        path=Path("m.gguf"),
        files=(Path("m.gguf"),),
        file_bytes=tensor.bytes,
        architecture="llama",
        name="m",
        file_type="Q4_K_M",
        context=context,
        layers=layers,
        embedding=4096,
        feed_forward=11008,
        heads=32,
        kv_heads=(kv_heads,) * layers,
        key_length=head,
        value_length=head,
        vocabulary=vocabulary,
        experts=0,
        dequantized_from=None,
        tensors=(tensor,),
        metadata={},
    )


def specs(made: Plan) -> tuple[EngineSpec, ...]:
    """The engines of a plan, as supervisors get them."""
    return tuple(each.spec for each in made.engines)
