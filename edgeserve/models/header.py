"""GGUF header: read metadata and tensor positions of a file, without its weights.

The reader of the package gguf builds an array for every token of the vocabulary: 1.7 s
for SmolLM2 here, a quarter of a minute on a Pi. This one skips long lists.
"""

from __future__ import annotations

import mmap
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from edgeserve.errors import CommandError
from edgeserve.models.blocks import BLOCKS, NAMES, tensor_bytes

LONG = 1024
"""Lists with more items are counted, not read."""

STRING, ARRAY = 8, 9
NUMBERS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?",
    10: "Q", 11: "q", 12: "d",
}  # fmt: skip
"""GGUF value type → its `struct` letter."""


class BrokenModel(CommandError):
    """The file is not a complete GGUF model; the message says what is wrong."""

    exit_status = 2

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path


@dataclass(frozen=True)
class LongList:
    """A list that was counted but not read, such as the vocabulary."""

    count: int


@dataclass(frozen=True)
class Tensor:
    """One tensor: its type, its shape (row first), its offset in the tensor data."""

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int

    @property
    def row(self) -> int:
        """Elements in a row; blocks never cross rows."""
        return self.shape[0]

    @property
    def elements(self) -> int:
        """Number of weights."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in the file, without padding."""
        return tensor_bytes(self.kind, self.shape)


@dataclass(frozen=True)
class Header:
    """Header of a GGUF file.

    `spans` has start and end of each key's entry in the file, so that entries can be
    copied without parsing. Tensor data begins at byte `data_offset`.
    """

    metadata: Mapping[str, Any]
    spans: Mapping[str, tuple[int, int]]
    tensors: tuple[Tensor, ...]
    data_offset: int
    alignment: int

    @property
    def file_bytes(self) -> int:
        """Size of the complete file, without the padding at its end."""
        ends = [tensor.offset + tensor.bytes for tensor in self.tensors]
        return self.data_offset + max(ends) if ends else 0


def read_header(path: Path) -> Header:
    """Read the header, and check that the file is long enough for all tensors.

    Raises BrokenModel, also if the file cannot be opened.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block
            raise BrokenModel(path, "is no regular file")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < _FIXED.size:
                raise BrokenModel(path, f"has only {size} bytes; not a GGUF model")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header = _Cursor(path, data).header()
    except OSError as error:
        raise BrokenModel(path, error.strerror or str(error)) from error
    except (struct.error, UnicodeDecodeError, IndexError, OverflowError) as error:
        raise BrokenModel(path, "ends inside its header") from error
    if size < header.file_bytes:
        raise BrokenModel(
            path,
            f"is cut short: it has {size:,} of {header.file_bytes:,} bytes;"
            " copy it again",
        )
    return header


MAGIC = b"GGUF"
_FIXED = struct.Struct("<4sIQQ")


class _Cursor:
    """Position in the file; each read advances it."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.at = 0

    def header(self) -> Header:
        magic, version, tensors, pairs = _FIXED.unpack_from(self.data)
        self.at = _FIXED.size
        if magic != MAGIC:
            raise BrokenModel(
                self.path, "is not a GGUF model (it does not begin with GGUF)"
            )
        if version not in {2, 3}:
            raise BrokenModel(
                self.path, f"is GGUF version {version:#x}; only 2 and 3 are supported"
            )
        metadata: dict[str, Any] = {}
        spans: dict[str, tuple[int, int]] = {}
        for _ in range(pairs):
            start = self.at
            key = self.string()
            metadata[key] = self.value(self.number("I"))
            spans[key] = (start, self.at)
        found = tuple(self.tensor() for _ in range(tensors))
        alignment = int(metadata.get("general.alignment", 32))
        start = -(-self.at // alignment) * alignment
        return Header(metadata, spans, found, start, alignment)

    def number(self, letter: str) -> Any:
        form = "<" + letter
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def string(self) -> str:
        length = self.number("Q")
        start, self.at = self.at, self.at + length
        if self.at > len(self.data):
            raise IndexError(start)
        return self.data[start : self.at].decode("utf-8", "surrogateescape")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.items(self.number("I"), self.number("Q"))
        if kind not in NUMBERS:
            raise BrokenModel(self.path, f"has a value of unknown type {kind}")
        return self.number(NUMBERS[kind])

    def items(self, kind: int, count: int) -> list[Any] | LongList:
        if count <= LONG:
            return [self.value(kind) for _ in range(count)]
        if kind in NUMBERS:
            self.at += count * struct.calcsize("<" + NUMBERS[kind])
        elif kind == STRING:
            self.skip_strings(count)
        else:
            raise BrokenModel(self.path, f"has a list of unknown type {kind}")
        return LongList(count)

    def skip_strings(self, count: int) -> None:
        length_at, at = struct.Struct("<Q").unpack_from, self.at
        for _ in range(count):
            at += 8 + length_at(self.data, at)[0]
        self.at = at

    def tensor(self) -> Tensor:
        name = self.string()
        shape = tuple(self.number("Q") for _ in range(self.number("I")))
        kind, offset = self.number("I"), self.number("Q")
        if kind not in NAMES:
            raise BrokenModel(self.path, f"tensor {name} has unknown type {kind}")
        block = BLOCKS[NAMES[kind]].elements
        if not shape or 0 in shape or shape[0] % block:
            raise BrokenModel(
                self.path, f"tensor {name} has the impossible shape {shape}"
            )
        return Tensor(name, NAMES[kind], shape, offset)
