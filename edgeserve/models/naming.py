"""Model names: model name and variant label of a file, and names of new files. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from edgeserve.models.blocks import BLOCKS
from edgeserve.quantization import ALIASES, TYPES

SPLIT = re.compile(r"-(\d{5})-of-(\d{5})$")
"""End of the name of one part of a split model: its number and the number of parts."""

_TYPE = re.compile(
    r"[-._](?:" + "|".join(sorted({*TYPES, *ALIASES, *BLOCKS}, key=len)[::-1]) + r")$",
    re.IGNORECASE,
)


def stem(path: Path) -> str:
    """Return a file name without type, number of part and `.gguf`."""
    return _without_type(SPLIT.sub("", path.name.removesuffix(".gguf")))


def _without_type(name: str) -> str:
    return _TYPE.sub("", name) or name


def variant_path(folder: Path, base: Path, kind: str) -> Path:
    """Return the path of the variant of `base` with this type."""
    return folder / f"{stem(base)}.{kind}.gguf"


PROJECTOR = "mmproj"
"""Part of the names of llama.cpp's multimodal projectors."""

PRECISIONS = ("F16", "Q8_0", "BF16", "F32")
"""Of projectors, best first: all backends have F16, few are fast with BF16."""


def named(file: Path, file_type: str) -> tuple[str, str]:
    """Return a file's model name and variant label.

    The label is the quantization type at the end of the file name, else `file_type`.
    """
    base = SPLIT.sub("", _bare(file))
    model = _without_type(base)
    label = base[len(model) :].strip("-._") or file_type
    if model.upper().endswith("-UD"):
        model, label = model[:-3], f"UD-{label}"
    return _plain(model), re.sub(r"[^A-Z0-9_-]", "_", label.upper())


def _bare(file: Path) -> str:
    return re.sub(r"\.gguf$", "", file.name, flags=re.IGNORECASE)


def _plain(name: str) -> str:
    """Return a name in lower case, with `-` for blanks and ASCII punctuation.

    macOS stores accents apart from their letters, others do not; NFC joins them.
    """
    letters = unicodedata.normalize("NFC", name.lower())
    kept = "".join(each if _safe(each) else " " for each in letters)
    return re.sub(" +", "-", kept).strip("-") or "model"


def _safe(letter: str) -> bool:
    if letter.isascii():
        return letter.isalnum() or letter in "._-"
    return letter.isprintable()


def is_later_part(file: Path) -> bool:
    """Return whether a file is the second or a later part of a split model."""
    found = SPLIT.search(_bare(file))
    return found is not None and int(found[1]) > 1


def is_projector(file: Path) -> bool:
    """Return whether a file is a projector, by its name."""
    return PROJECTOR in file.name.lower()


def projector_of(file: Path, siblings: Iterable[Path]) -> Path | None:
    """Return the projector of a model: named like it, or beside the only model there.

    Of several precisions of one projector, the best supported is returned.
    """
    others = [each for each in sorted(siblings) if not is_hidden(each)]
    projectors = [each for each in others if is_projector(each)]
    model = named(file, "")[0]
    own = [each for each in projectors if seen_for(each) == model]
    models = {named(each, "")[0] for each in others if not is_projector(each)}
    if not own and models <= {model} and len(set(map(seen_for, projectors))) == 1:
        own = projectors
    return min(own, key=_precision, default=None)


def seen_for(projector: Path) -> str:
    """Return the model name in a projector's name, the same for all precisions."""
    name = named(projector, "")[0].replace(PROJECTOR, "")
    return re.sub(r"-{2,}", "-", name).strip("-._")


def _precision(projector: Path) -> tuple[int, str]:
    label = named(projector, "")[1]
    known = label in PRECISIONS
    return PRECISIONS.index(label) if known else len(PRECISIONS), projector.name


def is_gguf(file: Path) -> bool:
    """Return whether a file is named like a model."""
    return file.suffix.lower() == ".gguf" and not is_hidden(file)


def is_hidden(file: Path) -> bool:
    """Return whether a file is one of macOS's `._` files, which hold attributes."""
    return file.name.startswith("._")
