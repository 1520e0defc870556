"""`regex=TYPE`: a tensor type for the tensors whose names match. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edgeserve.errors import CommandError
from quantize.blocks import BLOCKS, canonical


class BadOverride(CommandError):
    """A `--tensor-type` that cannot be meant; the sentence says why."""

    exit_status = 2


@dataclass(frozen=True)
class Override:
    """Tensors whose names `pattern` matches anywhere become `kind`."""

    pattern: str
    kind: str

    @property
    def number(self) -> int:
        """GGML's number of the type."""
        return BLOCKS[self.kind].id

    def __str__(self) -> str:
        return f"{self.pattern}={self.kind}"


def parse_override(text: str, tensors: Iterable[str]) -> Override:
    """Read one; a pattern that matches no tensor is a mistake. Raises BadOverride."""
    pattern, equals, word = text.rpartition("=")
    if not equals or not pattern:
        raise BadOverride(f"{text!r} is not REGEX=TYPE, such as attn_v=Q8_0")
    kind = canonical(word)
    if kind is None:
        known = ", ".join(BLOCKS)
        raise BadOverride(f"{word!r} is not a tensor type; known: {known}")
    try:
        matches = re.compile(pattern).search
    except re.error as error:
        raise BadOverride(f"{pattern!r} is not a regular expression: {error}") from None
    if not any(matches(name) for name in tensors):
        raise BadOverride(f"{pattern!r} matches no tensor of this model")
    return Override(pattern, kind)
