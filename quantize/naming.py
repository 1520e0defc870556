"""What variants of a model are called on disk: `stem.TYPE.gguf`. Pure."""

from __future__ import annotations

import re
from pathlib import Path

from edgeserve.quality import ALIASES
from quantize.blocks import BLOCKS
from quantize.types import TYPES

_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
_TYPE = re.compile(
    r"[-._](?:" + "|".join(sorted({*TYPES, *ALIASES, *BLOCKS}, key=len)[::-1]) + r")$",
    re.IGNORECASE,
)


def stem(path: Path) -> str:
    """Return the model's part of a file name, without type, split and `.gguf`."""
    name = _SPLIT.sub("", path.name.removesuffix(".gguf"))
    return _TYPE.sub("", name) or name


def variant_path(folder: Path, base: Path, kind: str) -> Path:
    """Return where the variant of `base` with this type goes."""
    return folder / f"{stem(base)}.{kind}.gguf"


def part_path(target: Path) -> Path:
    """Return the name a file has until it is whole and verified."""
    return target.with_name(target.name + ".part")
