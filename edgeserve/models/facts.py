"""Model facts: shape, context, tensors and sizes, read from a GGUF header.

The model's name in a fleet comes from `naming`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeserve.models.blocks import UNQUANTIZED
from edgeserve.models.header import BrokenModel, Header, LongList, Tensor, read_header
from edgeserve.models.naming import SPLIT
from edgeserve.quantization import FILE_TYPES

DEQUANTIZED = "edgeserve.dequantized_from"
"""Metadata key of a dequantized model: the quantized types it was made from."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts of a model. Lengths are in tokens or elements, sizes in bytes.

    `kv_heads` has one number per layer; `key_length` and `value_length` are elements
    per head. `file_type` is the type in the file's metadata, such as `Q4_K_M`.
    """

    path: Path
    files: tuple[Path, ...]
    file_bytes: int
    architecture: str
    name: str
    file_type: str
    context: int
    layers: int
    embedding: int
    feed_forward: int
    heads: int
    kv_heads: tuple[int, ...]
    key_length: int
    value_length: int
    vocabulary: int
    experts: int
    dequantized_from: str | None
    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, Any]

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the tensors, in the file and in memory."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def bits(self) -> float:
        """Bits per weight."""
        return self.weight_bytes * 8 / self.parameters

    @property
    def kinds(self) -> Mapping[str, tuple[int, int]]:
        """Tensor type → number of tensors and bytes, the largest share first."""
        count = Counter(tensor.kind for tensor in self.tensors)
        size: Counter[str] = Counter()
        for tensor in self.tensors:
            size[tensor.kind] += tensor.bytes
        return {kind: (count[kind], total) for kind, total in size.most_common()}

    @property
    def type_label(self) -> str:
        """The type in the metadata, else that of most of the weights."""
        known = self.file_type != "unknown"
        return self.file_type if known else next(iter(self.kinds))

    @property
    def quantized_kinds(self) -> tuple[str, ...]:
        """Tensor types of the model that are quantized."""
        return tuple(kind for kind in self.kinds if kind not in UNQUANTIZED)


def read(path: Path) -> ModelFacts:
    """Read the facts of a model in one file or split into several.

    Raises BrokenModel if it is not a complete GGUF model.
    """
    files = parts(path)
    headers = [read_header(file) for file in files]
    facts = _facts(path, files, headers)
    if not facts.tensors:
        raise BrokenModel(path, "has no tensors; it may be only a vocabulary")
    return facts


def parts(path: Path) -> tuple[Path, ...]:
    """Return the files of a model, by the name of the first."""
    found = SPLIT.search(path.stem)
    if not found:
        return (path,)
    stem, count = path.stem[: found.start()], int(found[2])
    names = (f"{stem}-{n:05}-of-{count:05}{path.suffix}" for n in range(1, count + 1))
    return tuple(path.with_name(name) for name in names)


def _facts(path: Path, files: tuple[Path, ...], headers: list[Header]) -> ModelFacts:
    meta = headers[0].metadata
    values = _MetadataReader(path, meta)
    heads = values.largest("attention.head_count")
    embedding = values.number("embedding_length", 0)
    head = embedding // heads if heads else 0
    return ModelFacts(
        path=path,
        files=files,
        file_bytes=sum(file.stat().st_size for file in files),
        architecture=values.architecture,
        name=str(meta.get("general.name", path.stem)),
        file_type=FILE_TYPES.get(meta.get("general.file_type", -1), "unknown"),
        context=values.number("context_length", 0),
        layers=values.number("block_count", 0),
        embedding=embedding,
        feed_forward=values.largest("feed_forward_length"),
        heads=heads,
        kv_heads=values.per_layer("attention.head_count_kv", heads),
        key_length=values.number("attention.key_length", head),
        value_length=values.number("attention.value_length", head),
        vocabulary=values.vocabulary(),
        experts=values.number("expert_count", 0),
        dequantized_from=meta.get(DEQUANTIZED),
        tensors=tuple(tensor for header in headers for tensor in header.tensors),
        metadata=meta,
    )


class _MetadataReader:
    """Reads metadata under the keys of the model's architecture."""

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        self.path = path
        self.metadata = metadata
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str):
            raise BrokenModel(path, "does not name its architecture")
        self.architecture = architecture

    def number(self, key: str, default: int) -> int:
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if not isinstance(value, int):
            raise BrokenModel(self.path, f"{key} is {value!r}, not a number")
        return value

    def largest(self, key: str) -> int:
        """Read a number that some architectures give for each layer; 0 by default."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        return max(value) if isinstance(value, list) else self.number(key, 0)

    def per_layer(self, key: str, default: int) -> tuple[int, ...]:
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if isinstance(value, list):
            return tuple(int(each) for each in value)
        return (self.number(key, default),) * self.number("block_count", 0)

    def vocabulary(self) -> int:
        tokens = self.metadata.get("tokenizer.ggml.tokens", [])
        count = tokens.count if isinstance(tokens, LongList) else len(tokens)
        return self.number("vocab_size", count)
