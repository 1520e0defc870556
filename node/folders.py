"""The model files in a folder and below, links to other folders included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgeserve.errors import in_words
from node.naming import is_hidden

UNFINISHED = ".fetching"
"""The folder in which `edgeserve pull` works."""

Identity = tuple[int, int]
"""Device and inode: one folder, by whatever name."""


@dataclass(frozen=True)
class Unfit:
    """A file that cannot be served; `reason` is a sentence that names it."""

    path: Path
    reason: str


def is_gguf(file: Path) -> bool:
    """Whether a file is named like a model."""
    return file.suffix.lower() == ".gguf" and not is_hidden(file)


def model_files(folder: Path) -> tuple[list[Path], list[Unfit]]:
    """Return every GGUF in `folder` and below, and what could not be read.

    Each folder is read once, however many links lead to it. Raises OSError where the
    folder itself cannot be read.
    """
    walk = _Walk()
    walk.read(folder)
    while walk.folders or walk.links:
        # Links come last: a folder that is here is known by its own name.
        here = (walk.folders or walk.links).pop()
        try:
            walk.read(here)
        except OSError as error:
            why = f"{here}: this folder cannot be read: {in_words(error)}"
            walk.unfit.append(Unfit(here, why))
    return sorted(walk.files), sorted(walk.unfit, key=lambda each: each.path)


@dataclass
class _Walk:
    """What is found, and what is still to be read."""

    files: list[Path] = field(default_factory=list[Path])
    unfit: list[Unfit] = field(default_factory=list[Unfit])
    folders: list[Path] = field(default_factory=list[Path])
    links: list[Path] = field(default_factory=list[Path])
    _read: set[Identity] = field(default_factory=set[Identity])

    def read(self, folder: Path) -> None:
        about = folder.stat()
        if (about.st_dev, about.st_ino) in self._read:
            return
        self._read.add((about.st_dev, about.st_ino))
        for path in _inside(folder):
            if path.is_dir():
                (self.links if path.is_symlink() else self.folders).append(path)
            elif is_gguf(path):
                self._take(path)

    def _take(self, path: Path) -> None:
        if path.is_file() or not path.exists():  # a link to nothing is told later
            self.files.append(path)
        else:
            self.unfit.append(Unfit(path, f"{path}: is no regular file"))


def _inside(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    return (folder / name for name in names if name != UNFINISHED)
