"""Which models are on this machine: the GGUF files, and what each is good for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from node.engines.protocol import Pooling, Role
from node.folders import Unfit, is_gguf, model_files
from node.naming import is_later_part, is_projector, named, projector_of, seen_for
from quantize.facts import ModelFacts, read
from quantize.header import BrokenModel

ENCODERS = frozenset(
    ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3",
     "modern-bert", "neo-bert", "eurobert", "gemma-embedding", "llama-embed",
     "t5encoder")
)  # fmt: skip
"""Architectures that make vectors and cannot generate."""

NOT_MODELS = {
    "adapter": "is a LoRA adapter, not a model",
    "imatrix": "is an importance matrix, not a model",
}
POOLING_RANK = 4


@dataclass(frozen=True, kw_only=True)
class Model:
    """A GGUF that can be served. `label` tells its variants apart, e.g. `Q4_K_M`."""

    path: Path
    model: str
    label: str
    role: Role
    facts: ModelFacts
    projector: Path | None = None
    projector_bytes: int = 0

    @property
    def variant(self) -> str:
        """The full name."""
        return f"{self.model}:{self.label}"

    @property
    def pooling(self) -> Pooling | None:
        """How to pool for embeddings; None where the file says it itself."""
        return None if _pooling(self.facts) is not None else "mean"


@dataclass(frozen=True)
class Shelf:
    """What a folder holds."""

    models: tuple[Model, ...] = ()
    unfit: tuple[Unfit, ...] = ()


def scan(folder: Path) -> Shelf:
    """Look at every GGUF in `folder` and below. A folder that is missing is empty.

    Raises OSError where the folder itself cannot be read.
    """
    if not os.path.lexists(folder):
        return Shelf()
    files, unread = model_files(folder)
    first = [file for file in files if not is_later_part(file)]
    found = [look(file) for file in first if not is_projector(file)]
    models = tuple(each for each in found if isinstance(each, Model))
    unfit = tuple(each for each in found if isinstance(each, Unfit))
    return Shelf(models, (*unread, *unfit, *_unseeing(files, models)))


def _unseeing(files: Iterable[Path], models: Iterable[Model]) -> Iterator[Unfit]:
    """Yield the projectors that no model uses, not even in another precision."""
    used = {
        (each.projector.parent, seen_for(each.projector))
        for each in models
        if each.projector
    }
    for file in files:
        if is_projector(file) and (file.parent, seen_for(file)) not in used:
            why = (
                "no model uses this projector; beside several models it must be named"
                " like its own, mmproj-MODEL.gguf"
            )
            yield Unfit(file, f"{file}: {why}")


def look(path: Path) -> Model | Unfit:
    """Say what one file is. Never raises: a broken file is an answer too."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="replace")
        return Unfit(path, f"{shown}: its name is not UTF-8; rename it")
    try:
        facts = read(path)
        siblings = [file for file in path.parent.iterdir() if is_gguf(file)]
    except BrokenModel as error:
        return Unfit(path, str(error))
    except Exception as error:  # noqa: BLE001 - a crafted header may break anything
        return Unfit(path, f"{path}: cannot be understood ({error!r})")
    kind = str(facts.metadata.get("general.type", "model"))
    if kind in NOT_MODELS or facts.architecture == "clip":
        why = NOT_MODELS.get(kind, "is a projector; it is used with its model")
        return Unfit(path, f"{path}: {why}")
    model, label = named(path, _type(facts))
    projector = projector_of(path, siblings)
    return Model(
        path=path,
        model=model,
        label=label,
        role=_role(facts),
        facts=facts,
        projector=projector,
        projector_bytes=projector.stat().st_size if projector else 0,
    )


def _type(facts: ModelFacts) -> str:
    """Return what the file claims to be, else the type of most of its bytes."""
    return facts.file_type if facts.file_type != "unknown" else next(iter(facts.kinds))


def _role(facts: ModelFacts) -> Role:
    pooling = _pooling(facts)
    if pooling == POOLING_RANK:
        return "rerank"
    if pooling or facts.architecture in ENCODERS:
        return "embeddings"
    return "generate"


def _pooling(facts: ModelFacts) -> int | None:
    value = facts.metadata.get(f"{facts.architecture}.pooling_type")
    return value if isinstance(value, int) else None
