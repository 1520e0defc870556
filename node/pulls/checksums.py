"""Checksums: what the content of each model file is, kept in the state folder."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from edgeserve.errors import in_words
from edgeserve.models.pull.sums import Sums
from edgeserve.runtime.files import RepeatedFault, read_json, replace_file
from node.models.changes import Stamp

log = logging.getLogger(__name__)

FILE = "checksums.json"


class FileSums(msgspec.Struct, frozen=True, kw_only=True):
    """The sums of a file, as long as its stamp is the same; see `SharedFile`."""

    stamp: Stamp
    sha256: str
    pieces: tuple[int, ...]
    key: str = ""

    @property
    def size(self) -> int:
        """The size of the file."""
        return self.stamp[1]


class StoredSums(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file of checksums."""

    files: dict[str, FileSums]


class Checksums:
    """Knows the sums of files. A file that changes has to be read again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._files = _read(self._path)
        self._faults = RepeatedFault(partial(log.warning, "%s"))

    def of(self, path: Path, stamp: Stamp) -> FileSums | None:
        """Return the sums of a file that has this stamp, if they are known."""
        found = self._files.get(str(path))
        return found if found and found.stamp == stamp else None

    def all(self) -> Mapping[Path, FileSums]:
        """Return all that is known; some may be of files as they were."""
        return {Path(path): sums for path, sums in self._files.items()}

    def record(self, path: Path, stamp: Stamp, sums: Sums, key: str = "") -> None:
        """Keep the sums of a file."""
        try:
            str(path).encode()
        except UnicodeEncodeError:
            return  # such a file is no model
        if not stamp:
            return  # gone meanwhile
        self._files[str(path)] = FileSums(
            stamp=stamp, sha256=sums.sha256, pieces=sums.pieces, key=key
        )
        self._write()

    def forget_all_but(self, paths: Iterable[Path]) -> None:
        """Drop the sums of files that are not there any longer."""
        gone = self._files.keys() - {str(each) for each in paths}
        for each in gone:
            del self._files[each]
        if gone:
            self._write()

    def _write(self) -> None:
        content = msgspec.json.encode(StoredSums(files=self._files))
        try:
            replace_file(self._path, content, durable=False)
        except OSError as error:
            self._faults.report(f"cannot write {self._path}: {in_words(error)}")
        else:
            self._faults.ended()


def _read(path: Path) -> dict[str, FileSums]:
    try:
        found = read_json(path, StoredSums).files
    except FileNotFoundError:
        return {}
    except OSError as error:
        log.warning("%s is not used: %s", path, in_words(error))
        return {}
    return {name: each for name, each in found.items() if len(each.stamp) > 1}
