"""Synthetic models: Llama models of any shape with random weights, to test engines.

They load and serve like real models; their output has no meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

Kind = gguf.GGMLQuantizationType

FILE_TYPES = {
    Kind.F32: gguf.LlamaFileType.ALL_F32,
    Kind.F16: gguf.LlamaFileType.MOSTLY_F16,
    Kind.BF16: gguf.LlamaFileType.MOSTLY_BF16,
    Kind.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
    Kind.Q4_0: gguf.LlamaFileType.MOSTLY_Q4_0,
    Kind.Q4_K: gguf.LlamaFileType.MOSTLY_Q4_K_M,
}
"""Types that can be written. Q4_K means Q4_K_M: half of two kinds of tensors is Q6_K,
as with llama-quantize."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Shape of a Llama model, in elements and tokens."""

    layers: int = 2
    embedding: int = 256
    feed_forward: int = 512
    heads: int = 4
    kv_heads: int = 2
    vocabulary: int = 512
    context: int = 512
    tied: bool = True


_TINY = Shape()

POOL_ROWS = 256
"""Random rows made for each shape; larger tensors repeat them, which is faster."""

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def a_model(
    path: Path,
    shape: Shape = _TINY,
    *,
    kind: gguf.GGMLQuantizationType = Kind.F16,
    name: str = "Synthetic",
) -> Path:
    """Write a model, with one tensor in memory at a time, and return its path."""
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, shape, kind, name)
    _add_vocabulary(writer, shape.vocabulary)
    pool: dict[tuple[int, Kind], NDArray[np.uint8]] = {}
    tensors = [
        (tensor, dims, _stored(tensor, dims, kind, shape))
        for tensor, dims in _tensors(shape)
    ]
    for tensor, dims, stored in tensors:
        row = _row_bytes(stored, dims[-1])
        writer.add_tensor_info(
            tensor, [*dims[:-1], row], np.dtype(np.uint8),
            int(np.prod(dims[:-1], dtype=np.int64)) * row, stored,
        )  # fmt: skip
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, dims, stored in tensors:
        writer.write_tensor_data(_data(dims, stored, pool))
    writer.close()
    return path


def _describe(
    writer: gguf.GGUFWriter, shape: Shape, kind: gguf.GGMLQuantizationType, name: str
) -> None:
    writer.add_name(name)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.embedding)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.embedding // shape.heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(2)


def _add_vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    special = [b"<unk>", b"<s>", b"</s>"]
    of_bytes = [f"<0x{n:02X}>".encode() for n in range(256)]
    words = [f"\u2581w{n}".encode() for n in range(size - len(special) - 256)]
    kinds = gguf.TokenType
    writer.add_tokenizer_model("llama")
    writer.add_token_list(special + of_bytes + words)
    writer.add_token_scores([0.0] * 259 + [-float(n) for n in range(len(words))])
    writer.add_token_types(
        [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL]
        + [kinds.BYTE] * 256
        + [kinds.NORMAL] * len(words)
    )
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)
    writer.add_chat_template(TEMPLATE)


def _tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and dimensions of all tensors, as in numpy: rows, then columns."""
    wide, hidden = shape.embedding, shape.feed_forward
    kv = wide // shape.heads * shape.kv_heads
    yield "token_embd.weight", (shape.vocabulary, wide)
    for n in range(shape.layers):
        yield f"blk.{n}.attn_norm.weight", (wide,)
        yield f"blk.{n}.attn_q.weight", (wide, wide)
        yield f"blk.{n}.attn_k.weight", (kv, wide)
        yield f"blk.{n}.attn_v.weight", (kv, wide)
        yield f"blk.{n}.attn_output.weight", (wide, wide)
        yield f"blk.{n}.ffn_norm.weight", (wide,)
        yield f"blk.{n}.ffn_gate.weight", (hidden, wide)
        yield f"blk.{n}.ffn_up.weight", (hidden, wide)
        yield f"blk.{n}.ffn_down.weight", (wide, hidden)
    yield "output_norm.weight", (wide,)
    if not shape.tied:
        yield "output.weight", (shape.vocabulary, wide)


def _stored(tensor: str, dims: tuple[int, ...], kind: Kind, shape: Shape) -> Kind:
    """Return the type of a tensor, for Q4_K_M as llama-quantize chooses it."""
    if len(dims) == 1:
        return Kind.F32
    if kind is not Kind.Q4_K:
        return kind
    if tensor == ("token_embd.weight" if shape.tied else "output.weight"):
        return Kind.Q6_K
    if tensor.endswith(("attn_v.weight", "ffn_down.weight")):
        layer, eighth = int(tensor.split(".")[1]), shape.layers // 8
        last = layer >= 7 * shape.layers // 8
        if layer < eighth or last or (layer - eighth) % 3 == 2:
            return Kind.Q6_K
    return kind


def _data(
    dims: tuple[int, ...], kind: Kind, pool: dict[tuple[int, Kind], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    if len(dims) == 1:
        return np.ones(dims, np.float32).view(np.uint8)
    rows, columns = dims
    if (columns, kind) not in pool:
        chance = np.random.default_rng([0, columns])
        pool[columns, kind] = _random_rows(kind, columns, chance)
    known = pool[columns, kind]
    return np.resize(known, (rows, known.shape[1]))


def _random_rows(
    kind: Kind, columns: int, chance: np.random.Generator
) -> NDArray[np.uint8]:
    """Return POOL_ROWS rows of random weights, scaled so that sums stay near 1.

    The package gguf cannot pack K-quants, so these are made of random bytes.
    """
    size = columns**-0.5
    if kind in (Kind.Q4_K, Kind.Q6_K):
        blocks = POOL_ROWS * columns // K_BLOCK
        packed = _K_BLOCKS[kind](blocks, size, chance)
    else:
        weights = chance.normal(0, size, (POOL_ROWS, columns))
        packed = gguf.quants.quantize(weights.astype(np.float32), kind)
    return packed.view(np.uint8).reshape(POOL_ROWS, -1)


K_BLOCK = 256
"""Weights in a block of a K-quant."""


def _q4_k(blocks: int, size: float, chance: np.random.Generator) -> NDArray[np.uint8]:
    """Pack random weights 8 d q - 8 dmin, q in 0 to 15; scales and minimums are 8."""
    spread = 4.61  # the standard deviation of q
    d = np.float16(size / spread / 8)
    block = np.empty((blocks, 144), np.uint8)
    block[:, :4] = np.array([d, 7.5 * d], np.float16).view(np.uint8)
    block[:, 4:12], block[:, 12:16] = 0x08, 0x88
    block[:, 16:] = chance.integers(0, 256, (blocks, 128), np.uint8)
    return block


def _q6_k(blocks: int, size: float, chance: np.random.Generator) -> NDArray[np.uint8]:
    """Pack random weights 4 d (q - 32), q in 0 to 63; scales are 4."""
    spread = 18.5  # the standard deviation of q
    block = np.empty((blocks, 210), np.uint8)
    block[:, :192] = chance.integers(0, 256, (blocks, 192), np.uint8)
    block[:, 192:208] = 4
    block[:, 208:] = np.array([size / spread / 4], np.float16).view(np.uint8)
    return block


_K_BLOCKS = {Kind.Q4_K: _q4_k, Kind.Q6_K: _q6_k}


def _row_bytes(kind: Kind, columns: int) -> int:
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    return columns // elements * size
