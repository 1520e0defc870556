"""State store: saved states on the disk, for their owner only, up to a limit.

Each state is a file of llama.cpp's and one of JSON beside it. llama.cpp restores a
damaged file without a word, so a file is read and compared with its SHA-256 before an
engine gets it. All methods but `path` and `find` read or write the disk.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from edgeserve.errors import in_words
from edgeserve.models.pull.sums import sums_of
from edgeserve.orders.caches import CacheFit, SavedState
from edgeserve.runtime.files import read_json, remove, replace_file, replacing, sha256
from node.caches.errors import DamagedState, NoRoom, NoSuchState
from node.caches.eviction import KeptState, leaving

log = logging.getLogger(__name__)

STATE, ABOUT = ".state", ".json"

UNFINISHED_SECONDS = 600.0

FREE_SHARE, FREE_BYTES = 0.05, 2**29
"""What stays free on the disk: a part of it, and at least so many bytes."""


class _Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept beside a state."""

    state: SavedState
    file: str


class StateStore:
    """The states in a folder. `limit` is in bytes."""

    def __init__(
        self, folder: Path, limit: int, clock: Callable[[], float] = time.time
    ) -> None:
        self.folder = folder
        self._limit = limit
        self._clock = clock
        self._kept: dict[str, KeptState] = {}
        self._lock = threading.Lock()

    @property
    def all(self) -> tuple[SavedState, ...]:
        """Every state."""
        return tuple(each.state for each in list(self._kept.values()))

    def open(self) -> None:
        """Find the states of earlier runs; remove what is damaged or unfinished."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        with self._lock:
            for about in self.folder.glob(f"*{ABOUT}"):
                self._find(about)
            known = {f"{id_}{end}" for id_ in self._kept for end in (STATE, ABOUT)}
            for each in self.folder.iterdir():
                if each.name not in known:
                    remove(each)
            self._make_room()

    def _find(self, about: Path) -> None:
        try:
            found = read_json(about, _Sidecar)
            at = self._path(found.state.id)
            stat = at.stat()
        except OSError as error:
            log.warning("removing a saved state: %s: %s", about, in_words(error))
            return
        if at.name != f"{about.name.removesuffix(ABOUT)}{STATE}":
            return
        if stat.st_size == found.state.size and Path(found.file).exists():
            self._kept[found.state.id] = KeptState(
                state=found.state, file=found.file, used=stat.st_mtime
            )

    def begun(self, size: int = 0) -> Path:
        """Return a path for a state that comes, of a size if known. Raises NoRoom."""
        self._check(size)
        try:
            disk = shutil.disk_usage(self.folder)
        except OSError as error:
            raise NoRoom(f"cannot use {self.folder}: {in_words(error)}") from error
        if disk.free < max(FREE_BYTES, FREE_SHARE * disk.total):
            raise NoRoom(f"the disk of {self.folder} is nearly full")
        return self.folder / f"{secrets.token_hex(8)}.part"

    def sums(self, part: Path, **about: object) -> SavedState:
        """Describe a file that an engine has saved. Raises OSError."""
        part.chmod(0o600)
        sums = sums_of(part, lambda _: None)
        return msgspec.convert(
            {
                **about,
                "size": part.stat().st_size,
                "sha256": sums.sha256,
                "pieces": sums.pieces,
                "saved": self._clock(),
            },
            SavedState,
        )

    def add(self, part: Path, state: SavedState, file: Path) -> None:
        """Keep a file as a state, of that model file. Raises OSError, NoRoom."""
        self._check(state.size)
        with self._lock:
            part.chmod(0o600)
            with replacing(self._path(state.id), part=part, durable=False):
                pass
            body = msgspec.json.encode(_Sidecar(state=state, file=str(file)))
            replace_file(self._about(state.id), body, mode=0o600, durable=False)
            self._kept[state.id] = KeptState(
                state=state, file=str(file), used=self._clock()
            )
            self._make_room(but=state.id)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise NoRoom(
                f"the state has {size:,} bytes, and all may take {self._limit:,};"
                " set cache_disk_mib higher"
            )

    def find(self, id_: str) -> SavedState | None:
        """Return a state."""
        kept = self._kept.get(id_)
        return kept.state if kept else None

    def path(self, sha256: str) -> Path | None:
        """Return the file of that content, if there is one."""
        for each in list(self._kept.values()):
            if each.state.sha256 == sha256:
                return self._path(each.state.id)
        return None

    def verified(self, id_: str) -> str:
        """Read a state; return the name of its file. Raises DamagedState."""
        kept = self._kept.get(id_)
        if kept is None:
            raise NoSuchState("this node does not keep the state any more")
        path = self._path(id_)
        try:
            right = sha256(path) == kept.state.sha256
            os.utime(path)
        except OSError as error:
            self.drop([id_])
            raise DamagedState(
                f"cannot read the saved state: {in_words(error)}"
            ) from error
        if not right:
            self.drop([id_])
            raise DamagedState(
                "the saved state is not what was saved; it has been removed"
            )
        self._kept[id_] = KeptState(
            state=kept.state, file=kept.file, used=self._clock()
        )
        return path.name

    def drop(self, ids: list[str] | tuple[str, ...]) -> None:
        """Remove states."""
        with self._lock:
            for each in ids:
                self._remove(each)

    def tidy(self) -> None:
        """Remove the states of models that are gone, and what nothing has used."""
        with self._lock:
            gone = [i for i, kept in self._kept.items() if not Path(kept.file).exists()]
            for each in gone:
                self._remove(each)
            self._make_room()
            for part in self.folder.glob("*.part"):
                self._drop_unfinished(part)

    def _drop_unfinished(self, part: Path) -> None:
        """Remove what an engine went on writing after its order was given up."""
        with suppress(OSError):
            if self._clock() - part.stat().st_mtime > UNFINISHED_SECONDS:
                remove(part)

    def _make_room(self, but: str = "") -> None:
        kept = self._kept.values()
        for each in leaving(kept, self._limit, self._clock(), but=but):
            self._remove(each.state.id)

    def _remove(self, id_: str) -> None:
        if self._kept.pop(id_, None) is not None:
            remove(self._about(id_))
            remove(self._path(id_))

    def _path(self, id_: str) -> Path:
        return self.folder / f"{_checked(id_)}{STATE}"

    def _about(self, id_: str) -> Path:
        return self.folder / f"{_checked(id_)}{ABOUT}"


def _checked(id_: str) -> str:
    if not re.fullmatch("[0-9a-f]{8,64}-[0-9a-f]{16}", id_):
        raise NoSuchState("this is no id of a state")
    return id_


def fits(state: CacheFit, engine: CacheFit) -> str:
    """Say in which way a state does not fit an engine, "" where it does. Pure."""
    differs = [
        f"{what} {getattr(state, name)}, not {getattr(engine, name)}"
        for name, what in NAMES.items()
        if getattr(state, name) != getattr(engine, name)
    ]
    return "; ".join(differs)


NAMES = {
    "content": "a model file",
    "build": "llama.cpp",
    "kv_type": "keys and values in",
    "flash_attention": "flash attention",
}
