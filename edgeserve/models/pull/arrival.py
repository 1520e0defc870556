"""Arrival of models: unfinished files, one writer each, verified, then in place.

An unfinished file lies in a hidden folder, named by its content and never `.gguf`; an
interrupted download goes on from it. Its own lock keeps a second process waiting.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeserve.errors import in_words
from edgeserve.models.download import MIB, NotFetched, Show
from edgeserve.models.header import MAGIC
from edgeserve.runtime.files import open_lock, replacing, take_lock

UNFINISHED = ".pulling"
SPARE = 64 * MIB
"""Left free on the disk."""


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """A file to come. `key` stands for its content; `fill` completes a part of it.

    `size` is None and `sha256` empty where they are unknown.
    """

    target: Path
    size: int | None
    key: str
    fill: Callable[[Path, Show], None]
    sha256: str = ""

    @property
    def part(self) -> str:
        """The name of the unfinished file."""
        return f"{self.key}.part"

    def is_there(self, show: Show) -> bool:
        """Whether the file is complete and right. Reads all of it."""
        path = self.target
        if not path.is_file() or self.size not in (None, path.stat().st_size):
            return False
        if not self.sha256:
            return True
        return (
            _digest(path, f"{path.name}: verifying the copy here", show) == self.sha256
        )


def arrive(files: Sequence[Incoming], folder: Path, show: Show) -> Path:
    """Bring the files into place, and return the path of the first.

    The first comes last: a model is seen when it is complete. Raises NotFetched.
    """
    work = folder / UNFINISHED
    try:
        missing = [each for each in files if not each.is_there(show)]
        if missing:
            work.mkdir(parents=True, exist_ok=True)
            _check_room(missing, work)
        for each in reversed(missing):
            _bring(each, work, show)
    except KeyboardInterrupt:
        raise NotFetched(
            "interrupted; the same command goes on from where it stopped"
        ) from None
    except OSError as error:
        raise NotFetched(
            f"cannot write to {folder}: {in_words(error)}; what has come is kept, and"
            " the same command goes on from there"
        ) from error
    return files[0].target


def _check_room(files: Sequence[Incoming], work: Path) -> None:
    """Raise NotFetched where the disk has no room for what is still to come."""
    needed = sum(max(0, (each.size or 0) - _size(work / each.part)) for each in files)
    free = shutil.disk_usage(work).free
    if needed and free < needed + SPARE:
        raise NotFetched(
            f"{needed // MIB} MiB are to come, and {work.parent} has {free // MIB} MiB"
            " free; --models-dir and EDGESERVE_MODELS_DIR name another folder"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _bring(file: Incoming, work: Path, show: Show) -> None:
    part = work / file.part
    with _alone(part, lambda: show(_WAITING.format(file.target.name), 0, 0)):
        if file.is_there(show):
            part.unlink()
            return
        begun = _size(part) > 0
        file.fill(part, show)
        if not _right(file, part, show):
            # What was kept from an earlier run may be what is wrong.
            os.truncate(part, 0)
            if begun:
                file.fill(part, show)
            if not begun or not _right(file, part, show):
                part.unlink()
                raise NotFetched(
                    f"{file.target.name} came damaged: its SHA-256 is not the one that"
                    " was announced; nothing was kept. Try again, or another mirror"
                )
        _check_kind(file, part)
        file.target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file.target, part=part):
            pass


_WAITING = "{}: waiting for another edgeserve that fetches it"


def _right(file: Incoming, part: Path, show: Show) -> bool:
    if file.size not in (None, _size(part)):
        return False
    step = f"{file.target.name}: verifying"
    return not file.sha256 or _digest(part, step, show) == file.sha256


def _digest(path: Path, step: str, show: Show) -> str:
    """Return the SHA-256 of a file; report how far it is."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as content:
        while piece := content.read(4 * MIB):
            digest.update(piece)
            done += len(piece)
            show(step, done, total)
    return digest.hexdigest()


def copy(source: Path, part: Path, step: str, show: Show) -> None:
    """Copy a file of this machine; report how far it is."""
    done, total = 0, source.stat().st_size
    with source.open("rb") as content, part.open("wb") as sink:
        while piece := content.read(4 * MIB):
            done += sink.write(piece)
            show(step, done, total)


def _check_kind(file: Incoming, part: Path) -> None:
    with part.open("rb") as content:
        begin = content.read(len(MAGIC))
    if begin != MAGIC:
        part.unlink()
        raise NotFetched(
            f"{file.target.name} is no GGUF file but begins with {begin!r}; nothing"
            " was kept. Is the address that of a page about the file?"
        )


@contextmanager
def _alone(part: Path, taken: Callable[[], None]) -> Generator[None]:
    """Lock the unfinished file; wait while another process fills it."""
    while True:
        with open_lock(part) as lock:
            take_lock(lock, taken)
            # The other process may have put the file that was opened in its place.
            if _is_file(part, os.fstat(lock.fileno())):
                yield
                return


def _is_file(path: Path, opened: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), opened)
    except FileNotFoundError:
        return False


def namesakes(target: Path, folder: Path) -> list[Path]:
    """Return other files of this name: a node gives them the same name of a model."""
    return sorted(each for each in folder.rglob(target.name) if each != target)
