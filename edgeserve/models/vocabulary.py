"""Vocabulary: which models have the same tokens, so that one can draft for another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeserve.models.header import BrokenModel, LongList, read_header

TOKENS = "tokenizer.ggml.tokens"

ARRAY_HEAD = 8 + len(TOKENS) + 4 + 4 + 8
"""Bytes of the list's entry before its first item: key, types and count."""

MOST_PADDING = 128
"""llama.cpp's limit: sizes of one family differ by tokens that only fill up a row."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The tokens of a model. `tokens` is the list as it is in the file.

    `marks` are the tokens that are put before and after a text, None where none is.
    """

    kind: str
    marks: tuple[int | None, int | None]
    count: int
    tokens: bytes

    def matches(self, other: Vocabulary) -> bool:
        """Whether each token means the same in both; one may have padding more.

        llama.cpp asks for the same, but for the texts of the first five tokens.
        """
        alike = (self.kind, self.marks) == (other.kind, other.marks)
        short, long = sorted((self, other), key=lambda each: len(each.tokens))
        padding = abs(self.count - other.count)
        return (
            alike and padding <= MOST_PADDING and long.tokens.startswith(short.tokens)
        )


def vocabulary_of(path: Path) -> Vocabulary:
    """Read the vocabulary of a model; of a split one, its first file has it.

    Raises BrokenModel, also where there is none.
    """
    header = read_header(path)
    meta = header.metadata
    if TOKENS not in meta:
        raise BrokenModel(path, "has no vocabulary")
    start, end = header.spans[TOKENS]
    try:
        with path.open("rb") as file:
            file.seek(start + ARRAY_HEAD)
            tokens = file.read(end - start - ARRAY_HEAD)
    except OSError as error:
        raise BrokenModel(path, error.strerror or str(error)) from error
    listed = meta[TOKENS]
    return Vocabulary(
        kind=str(meta.get("tokenizer.ggml.model", "")),
        marks=(_mark(meta, "bos"), _mark(meta, "eos")),
        count=listed.count if isinstance(listed, LongList) else len(listed),
        tokens=tokens,
    )


def _mark(meta: Mapping[str, Any], name: str) -> int | None:
    """Return the token put at an end; -1 where llama.cpp decides by the kind."""
    if meta.get(f"tokenizer.ggml.add_{name}_token") is False:
        return None
    token = meta.get(f"tokenizer.ggml.{name}_token_id")
    return token if isinstance(token, int) else -1
