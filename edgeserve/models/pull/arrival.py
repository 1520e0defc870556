"""Arrival of models: unfinished files, one writer each, verified, then in place.

An unfinished file lies in a hidden folder, named by its content and never `.gguf`; an
interrupted download goes on from it. Its own lock keeps a second process waiting.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgeserve.errors import in_words
from edgeserve.models.download import MIB, NotFetched, Show
from edgeserve.models.header import MAGIC
from edgeserve.models.pull.sums import Sums, sums_of
from edgeserve.runtime.files import open_lock, replacing, take_lock

UNFINISHED = ".pulling"
SPARE = 64 * MIB
"""Left free on the disk."""

ABANDONED = 7 * 24 * 3600
"""Seconds after which an unfinished file that nothing was written to is removed."""

Fill = Callable[[Path, Show], Sums | None]
"""Completes an unfinished file; returns its sums where it has computed them."""

Arrived = Callable[["Incoming", Sums], None]
"""Called for each file that is in place."""


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """A file to come. `key` stands for its content; `fill` completes a part of it.

    `size` is None and `sha256` empty where they are unknown.
    """

    target: Path
    size: int | None
    key: str
    fill: Fill
    sha256: str = ""

    @property
    def part(self) -> str:
        """The name of the unfinished file."""
        return f"{self.key}.part"

    def there(self, show: Show, *, summed: bool = False) -> Sums | None:
        """Return the sums of the file if it is complete and right; reads all of it.

        Without a SHA-256 nothing is read, unless its sums are wanted.
        """
        path = self.target
        if not path.is_file() or self.size not in (None, path.stat().st_size):
            return None
        if not (self.sha256 or summed):
            return Sums()
        sums = _summed(path, f"{path.name}: verifying the copy here", show)
        return sums if self.sha256 in ("", sums.sha256) else None


def arrive(
    files: Sequence[Incoming],
    folder: Path,
    show: Show,
    arrived: Arrived | None = None,
) -> Path:
    """Bring the files into place, and return the path of the first.

    The first comes last: a model is seen when it is complete. Raises NotFetched.
    """
    work = folder / UNFINISHED
    try:
        remove_abandoned(folder)
        missing = [each for each in files if not _is_there(each, show, arrived)]
        if missing:
            work.mkdir(parents=True, exist_ok=True)
            _check_room(missing, work)
        for each in reversed(missing):
            _bring(each, work, show, arrived)
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


def remove_abandoned(folder: Path, now: float | None = None) -> list[Path]:
    """Remove unfinished files that are old and that nothing fills; returns them."""
    removed, before = list[Path](), (now or time.time()) - ABANDONED
    parts = list[Path]()
    with suppress(OSError):  # the watch of the folder says why it cannot be read
        parts = [*(folder / UNFINISHED).glob("*.part")]
    for part in parts:
        # A file that cannot be removed is in the way of nothing.
        with suppress(OSError):
            if part.stat().st_mtime < before and not part.is_symlink():
                with open_lock(part) as lock:
                    take_lock(lock, _in_use)
                    part.unlink()
                removed.append(part)
    return removed


def _in_use() -> None:
    raise BlockingIOError


def _is_there(file: Incoming, show: Show, arrived: Arrived | None) -> bool:
    sums = file.there(show, summed=arrived is not None)
    if sums is not None and arrived:
        arrived(file, sums)
    return sums is not None


def _check_room(files: Sequence[Incoming], work: Path) -> None:
    """Raise NotFetched where the disk has no room for what is still to come."""
    needed = sum(max(0, (each.size or 0) - _size(work / each.part)) for each in files)
    free = shutil.disk_usage(work).free
    if needed and free < needed + SPARE:
        raise NotFetched(
            f"{needed // MIB} MiB are to come, {SPARE // MIB} MiB shall stay free, and"
            f" {work.parent} has {free // MIB} MiB free; --models-dir and"
            " EDGESERVE_MODELS_DIR name another folder"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _bring(file: Incoming, work: Path, show: Show, arrived: Arrived | None) -> None:
    part = work / file.part
    with _alone(part, lambda: show(_WAITING.format(file.target.name), 0, 0)):
        if _is_there(file, show, arrived):
            part.unlink()
            return
        sums = _completed(file, part, show, summed=arrived is not None)
        _check_kind(file, part)
        file.target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file.target, part=part):
            pass
        if arrived:
            arrived(file, sums)


_WAITING = "{}: waiting for another edgeserve that fetches it"


def _completed(file: Incoming, part: Path, show: Show, *, summed: bool) -> Sums:
    """Fill the part, and return its sums. Raises NotFetched where it is not right."""
    begun = _size(part) > 0
    sums = _filled(file, part, show, summed=summed)
    if sums is None:
        # What was kept from an earlier run may be what is wrong.
        os.truncate(part, 0)
        sums = _filled(file, part, show, summed=summed) if begun else None
    if sums is None:
        part.unlink()
        raise NotFetched(
            f"{file.target.name} came damaged: its SHA-256 is not the one that"
            " was announced; nothing was kept. Try again, or another mirror"
        )
    return sums


def _filled(file: Incoming, part: Path, show: Show, *, summed: bool) -> Sums | None:
    """Fill the part, and return its sums; None where it is not what was announced."""
    sums = file.fill(part, show)
    if file.size not in (None, _size(part)):
        return None
    if sums is None and not (file.sha256 or summed):
        return Sums()
    sums = sums or _summed(part, f"{file.target.name}: verifying", show)
    return sums if file.sha256 in ("", sums.sha256) else None


def _summed(path: Path, step: str, show: Show) -> Sums:
    """Return the sums of a file; report how far it is."""
    total = path.stat().st_size
    return sums_of(path, lambda done: show(step, done, total))


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
