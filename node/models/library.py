"""Model library: the GGUF files on this machine, and the role of each."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgeserve.errors import in_words
from edgeserve.models.facts import ModelFacts, parts, read
from edgeserve.models.header import BrokenModel
from edgeserve.models.naming import (
    is_gguf,
    is_later_part,
    is_projector,
    named,
    projector_of,
    seen_for,
)
from edgeserve.models.pull.arrival import UNFINISHED
from edgeserve.wire import Ability
from node.engines.base import Pooling, Role

UNFINISHED_FOLDERS = frozenset((".fetching", UNFINISHED))
"""Folders of unfinished downloads."""

Identity = tuple[int, int]
"""Device and inode: one folder, by whatever name."""


@dataclass(frozen=True)
class UnusableFile:
    """A file that cannot be served; `reason` is a sentence that names it."""

    path: Path
    reason: str


def model_files(folder: Path) -> tuple[list[Path], list[UnusableFile]]:
    """Return every GGUF in `folder` and below, and what cannot be read.

    Each folder is read once, however many links lead to it. Raises OSError where the
    folder itself cannot be read.
    """
    walk = _Walk()
    walk.read(folder)
    while walk.folders or walk.links:
        # Links come last, so that a folder is found under its own name.
        here = (walk.folders or walk.links).pop()
        try:
            walk.read(here)
        except OSError as error:
            why = f"{here}: this folder cannot be read: {in_words(error)}"
            walk.unusable.append(UnusableFile(here, why))
    return sorted(walk.files), sorted(walk.unusable, key=lambda each: each.path)


@dataclass
class _Walk:
    """The files found, and the folders still to read."""

    files: list[Path] = field(default_factory=list[Path])
    unusable: list[UnusableFile] = field(default_factory=list[UnusableFile])
    folders: list[Path] = field(default_factory=list[Path])
    links: list[Path] = field(default_factory=list[Path])
    _read: set[Identity] = field(default_factory=set[Identity])

    def read(self, folder: Path) -> None:
        about = folder.stat()
        if (about.st_dev, about.st_ino) in self._read:
            return
        self._read.add((about.st_dev, about.st_ino))
        for path in _inside(folder):
            # Not `Path.is_dir`: it raises where a link leads to what may not be read.
            if os.path.isdir(path):  # noqa: PTH112
                (self.links if path.is_symlink() else self.folders).append(path)
            elif is_gguf(path):
                self._take(path)

    def _take(self, path: Path) -> None:
        # A link that is broken, or leads to what may not be read, is reported later.
        if os.path.isfile(path) or not os.path.exists(path):  # noqa: PTH110, PTH113
            self.files.append(path)
        else:
            self.unusable.append(UnusableFile(path, f"{path}: is no regular file"))


def _inside(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    return (folder / name for name in names if name not in UNFINISHED_FOLDERS)


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
    """A GGUF that can be served. `label` distinguishes its variants, e.g. `Q4_K_M`."""

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
    def files(self) -> tuple[Path, ...]:
        """All files that an engine reads: the parts, and the projector."""
        beside = (self.projector,) if self.projector else ()
        return (*self.facts.files, *beside)

    @property
    def pooling(self) -> Pooling | None:
        """How to pool for embeddings; None where the file names it."""
        return None if _pooling(self.facts) is not None else "mean"

    @property
    def written(self) -> int:
        """The time of its file, in Unix seconds; 0 where there is none any more."""
        try:
            return int(self.path.stat().st_mtime)
        except OSError:
            return 0

    def abilities(self, role: Role) -> tuple[Ability, ...]:
        """Return what it can do in a role, as far as its files show."""
        if role != "generate":
            return (role,)
        # Once it has loaded, the engine tells which of these the model lacks.
        text: tuple[Ability, ...] = ("chat", "completion", "tools")
        return (*text, "vision", "audio") if self.projector else text


@dataclass(frozen=True)
class ModelLibrary:
    """The models of a folder, and its unusable files."""

    models: tuple[Model, ...] = ()
    unusable: tuple[UnusableFile, ...] = ()


def scan(folder: Path, arriving: Collection[Path] = ()) -> ModelLibrary:
    """Read every GGUF in `folder` and below. A missing folder is empty.

    Files that are `arriving` are left out; a part of a model keeps the model out.
    Raises OSError where the folder itself cannot be read.
    """
    if not os.path.lexists(folder):
        return ModelLibrary()
    files, unread = model_files(folder)
    first = [file for file in files if not is_later_part(file)]
    complete = [file for file in first if not arrives(file, arriving)]
    found = [look(file) for file in complete if not is_projector(file)]
    models = tuple(each for each in found if isinstance(each, Model))
    unusable = tuple(each for each in found if isinstance(each, UnusableFile))
    return ModelLibrary(
        models, (*unread, *unusable, *_unused_projectors(files, models))
    )


def arrives(file: Path, arriving: Collection[Path]) -> bool:
    """Whether a file, or another part of the same model, is not complete yet."""
    if not arriving:
        return False
    return any(part in arriving for part in (file, *parts(file)))


def _unused_projectors(
    files: Iterable[Path], models: Iterable[Model]
) -> Iterator[UnusableFile]:
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
            yield UnusableFile(file, f"{file}: {why}")


def look(path: Path) -> Model | UnusableFile:
    """Read one file. Never raises: a broken file is a result, too."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="replace")
        return UnusableFile(path, f"{shown}: its name is not UTF-8; rename it")
    if (end := _gone(path)) is not None:
        remedy = "`edgeserve models adopt` or `models rm` removes the link"
        return UnusableFile(path, f"{path}: leads to {end}, which is gone; {remedy}")
    try:
        facts = read(path)
        siblings = [file for file in path.parent.iterdir() if is_gguf(file)]
    except BrokenModel as error:
        return UnusableFile(path, str(error))
    except Exception as error:  # noqa: BLE001 - a crafted header may break anything
        return UnusableFile(path, f"{path}: cannot be understood ({error!r})")
    kind = str(facts.metadata.get("general.type", "model"))
    if kind in NOT_MODELS or facts.architecture == "clip":
        why = NOT_MODELS.get(kind, "is a projector; it is used with its model")
        return UnusableFile(path, f"{path}: {why}")
    model, label = named(path, facts.type_label)
    projector = projector_of(path, siblings)
    return Model(
        path=path,
        model=model,
        label=label,
        role=role_of(facts),
        facts=facts,
        projector=projector,
        projector_bytes=projector.stat().st_size if projector else 0,
    )


def _gone(path: Path) -> str | None:
    """Return where a link leads, if nothing is there."""
    try:
        path.stat()
    except FileNotFoundError:
        return os.path.realpath(path) if path.is_symlink() else None
    except OSError:
        return None
    return None


def role_of(facts: ModelFacts) -> Role:
    """Return what the model is for: to write text, or to make vectors or ranks."""
    pooling = _pooling(facts)
    if pooling == POOLING_RANK:
        return "rerank"
    if pooling or facts.architecture in ENCODERS:
        return "embeddings"
    return "generate"


def _pooling(facts: ModelFacts) -> int | None:
    value = facts.metadata.get(f"{facts.architecture}.pooling_type")
    return value if isinstance(value, int) else None
