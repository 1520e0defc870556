"""Dequantization: convert the tensors of a quantized model to F16, BF16 or F32.

This does not restore the precision that quantizing lost. All metadata is copied byte by
byte, except the file type; one key is added.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edgeserve.errors import CommandError
from edgeserve.models.blocks import BLOCKS, UNQUANTIZED
from edgeserve.models.facts import DEQUANTIZED, ModelFacts
from edgeserve.models.header import Header, Tensor, read_header
from edgeserve.models.naming import stem
from edgeserve.quantization import TYPES
from edgeserve.runtime.files import part_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SLAB = 2**22
"""Weights converted at a time: 16 MiB as F32."""

FILE_TYPE = "general.file_type"


class NothingToDo(CommandError):
    """The model has no quantized tensors, or is in several files."""


def dequantized_path(folder: Path, source: Path, to: str) -> Path:
    """Return the path of the base; names of its variants keep `dequantized`, too."""
    return folder / f"{stem(source)}-dequantized.{to}.gguf"


def dequantize(
    facts: ModelFacts, target: Path, to: str, step: Callable[[Tensor], None]
) -> None:
    """Write the model to `target` with its quantized tensors converted to `to`.

    Calls `step` before each tensor. Raises NothingToDo, BrokenModel.
    """
    if not facts.quantized_kinds:
        raise NothingToDo(
            f"{facts.path} has no quantized tensors; it can be a base as it is"
        )
    if len(facts.files) > 1:
        raise NothingToDo(
            f"{facts.path} is in several files; merge them with llama-gguf-split first"
        )
    header = read_header(facts.path)
    planned = _lay_out(header, to)
    with part_of(target) as part:
        with facts.path.open("rb") as source, part.open("wb") as out:
            _write_header(source, out, header, planned, facts, to)
            for old, new in zip(header.tensors, planned, strict=True):
                step(old)
                out.write(b"\0" * (-out.tell() % header.alignment))
                for piece in _pieces(source, header, old, new.kind):
                    out.write(piece)
            out.write(b"\0" * (-out.tell() % header.alignment))
        read_header(part)


def _lay_out(header: Header, to: str) -> tuple[Tensor, ...]:
    """Return the tensors with their new types and offsets."""
    offset, placed = 0, list[Tensor]()
    for tensor in header.tensors:
        kind = tensor.kind if tensor.kind in UNQUANTIZED else to
        new = replace(tensor, kind=kind, offset=offset)
        placed.append(new)
        offset += -(-new.bytes // header.alignment) * header.alignment
    return tuple(placed)


def _write_header(
    source: BinaryIO,
    out: BinaryIO,
    header: Header,
    tensors: tuple[Tensor, ...],
    facts: ModelFacts,
    to: str,
) -> None:
    written = {FILE_TYPE, DEQUANTIZED}
    kept = [span for key, span in header.spans.items() if key not in written]
    out.write(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(kept) + len(written)))
    for start, end in kept:
        source.seek(start)
        out.write(source.read(end - start))
    out.write(_string(FILE_TYPE) + struct.pack("<II", 4, TYPES[to].ftype))
    origin = facts.dequantized_from or ", ".join(facts.quantized_kinds)
    out.write(_string(DEQUANTIZED) + struct.pack("<I", 8) + _string(origin))
    for tensor in tensors:
        rank = len(tensor.shape)
        out.write(_string(tensor.name))
        out.write(struct.pack(f"<I{rank}Q", rank, *tensor.shape))
        out.write(struct.pack("<IQ", BLOCKS[tensor.kind].id, tensor.offset))


def _string(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def _pieces(
    source: BinaryIO, header: Header, tensor: Tensor, to: str
) -> Iterator[bytes]:
    """Yield the bytes of a tensor in pieces, converted if its type changes."""
    block = BLOCKS[tensor.kind]
    slab = max(1, SLAB // block.elements) * block.bytes
    source.seek(header.data_offset + tensor.offset)
    left = tensor.bytes
    while left:
        packed = source.read(min(slab, left))
        if not packed:
            raise OSError(f"{source.name} became shorter while it was being read")
        left -= len(packed)
        yield packed if to == tensor.kind else _convert(packed, tensor.kind, to)


def _convert(packed: bytes, kind: str, to: str) -> bytes:
    import gguf
    import numpy as np

    types = gguf.GGMLQuantizationType
    blocks = np.frombuffer(packed, np.uint8).reshape(-1, BLOCKS[kind].bytes)
    wide: NDArray[np.float32] = gguf.quants.dequantize(blocks, types[kind])
    return bytes(gguf.quants.quantize(wide, types[to]).tobytes())
