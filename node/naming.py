"""What a GGUF file is called in the fleet: `model:LABEL`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from quantize.naming import stem

SPLIT = re.compile(r"-(\d{5})-of-(\d{5})$")
PROJECTOR = "mmproj"
"""Files with this in their name see for a model: llama.cpp's multimodal projectors."""

SPLIT_FIRST = 1


def named(file: Path, file_type: str) -> tuple[str, str]:
    """Return a file's model name and variant label.

    The label is the quantization type at the end of the file name, else `file_type`.
    """
    base = SPLIT.sub("", _bare(file))
    model = stem(Path(f"{base}.gguf"))
    label = base[len(model) :].strip("-._") or file_type
    if model.upper().endswith("-UD"):
        model, label = model[:-3], f"UD-{label}"
    return _plain(model), re.sub(r"[^A-Z0-9_-]", "_", label.upper())


def _bare(file: Path) -> str:
    return re.sub(r"\.gguf$", "", file.name, flags=re.IGNORECASE)


def _plain(name: str) -> str:
    """Keep what is safe in URLs, tables and engine ids."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-") or "model"


def is_later_part(file: Path) -> bool:
    """Whether a file is a split model's second or later part."""
    found = SPLIT.search(_bare(file))
    return found is not None and int(found[1]) > SPLIT_FIRST


def is_projector(file: Path) -> bool:
    """Whether a file's name says that it is a projector."""
    return PROJECTOR in file.name.lower()


def projector_of(file: Path, siblings: Iterable[Path]) -> Path | None:
    """Return the projector beside a model: the one named like it, or both alone."""
    others = sorted(siblings)
    projectors = [each for each in others if is_projector(each)]
    model = named(file, "")[0]
    for each in projectors:
        if _core(each) == model:
            return each
    models = {named(each, "")[0] for each in others if not is_projector(each)}
    return projectors[0] if len(projectors) == 1 and models <= {model} else None


def _core(projector: Path) -> str:
    name = named(projector, "")[0].replace(PROJECTOR, "")
    return re.sub(r"-{2,}", "-", name).strip("-._")
