"""Changes of the models folder: what to make of two looks at its files. Pure.

A file that is being copied changes between two looks; it counts once it has stayed the
same from one look to the next. Until then, what was there before counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Stamp = tuple[int, ...]
Stamps = Mapping[Path, Stamp]
"""Each file's stamp, see `edgeserve.runtime.files.stamp`."""

Signature = tuple[tuple[Path, Stamp], ...]
"""The files of one model, with their stamps: parts and projector included."""

Step = Literal["keep", "stop", "restart"]


@dataclass(frozen=True)
class Listing:
    """One look at the folder.

    What is below the `unread` folders is not known; it is taken to be as it was.
    """

    files: Stamps = field(default_factory=dict[Path, Stamp])
    unread: frozenset[Path] = frozenset()


@dataclass(frozen=True)
class FolderState:
    """The files that count; `arriving` ones are not complete yet."""

    files: Stamps = field(default_factory=dict[Path, Stamp])
    unread: frozenset[Path] = frozenset()
    arriving: frozenset[Path] = frozenset()

    def signature(self, files: Collection[Path]) -> Signature:
        """Return the signature of a model of these files."""
        return tuple((file, self.files.get(file, ())) for file in files)

    def differs(self, other: FolderState) -> bool:
        """Whether there is something to do after the other."""
        return (self.files, self.unread) != (other.files, other.unread)


def settled(before: Listing, now: Listing, folder: FolderState) -> FolderState:
    """Return what counts after two looks, one after the other, and what did before."""
    files = dict[Path, Stamp]()
    arriving = set[Path]()
    for path in {*before.files, *now.files, *folder.files}:
        seen = _seen(path, now, folder)
        known = folder.files.get(path)
        counts = seen if seen == _seen(path, before, folder) else known
        if counts is not None:
            files[path] = counts
        if seen is not None and seen != counts:
            arriving.add(path)
    return FolderState(files, now.unread, frozenset(arriving))


def _seen(path: Path, listing: Listing, folder: FolderState) -> Stamp | None:
    """Return a file's stamp in a listing; None where it is not there."""
    if listing.unread.isdisjoint(path.parents):
        return listing.files.get(path)
    return folder.files.get(path)


def step(
    started: Signature,
    parts: Collection[Path],
    folder: FolderState,
    usable: Signature | None,
) -> Step:
    """Decide about an engine: it `started` with these files, `parts` are the model's.

    `usable` is the signature of the model that is there now. A file that was replaced
    by a broken one leaves the engine as it is: it could not be started again.
    """
    if any(
        stamp and file in parts and file not in folder.files for file, stamp in started
    ):
        return "stop"
    return "keep" if usable in {None, started} else "restart"
