"""Shared files: the model files that this node gives to other nodes of the fleet."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgeserve.config.settings import NodeSettings
from edgeserve.models.pull.sums import Sums, sums_of
from edgeserve.openai import normal
from edgeserve.orders.pulls import SharedFile, SharedFiles
from edgeserve.runtime.files import stamp
from node.models.changes import Stamp
from node.models.library import scan
from node.models.listing import look_at
from node.pulls.checksums import Checksums, FileSums

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What another node looks for: a content of some size, or the files of a model.

    `content` is a SHA-256 or a key.
    """

    content: str = ""
    size: int | None = None
    model: str = ""


class Library:
    """Finds the files that others want, and computes checksums that are missing."""

    def __init__(self, settings: NodeSettings, checksums: Checksums) -> None:
        self._settings = settings
        self._checksums = checksums
        self._known: frozenset[Path] = frozenset()
        self._unread: dict[Path, None] = {}
        self._unreadable: dict[Path, Stamp] = {}
        self._woken = asyncio.Event()

    async def find(self, wanted: Wanted) -> SharedFiles:
        """Return what fits. Files that may fit are read, and found later.

        Without anything wanted, all that are known are listed, and none is read.
        """
        stamps = (await asyncio.to_thread(look_at, self._settings)).files
        variants = await asyncio.to_thread(self._variants, wanted.model)
        if wanted.model:
            stamps = {path: stamps.get(path) or stamp(path) for path in variants}
        self._known = frozenset(stamps)
        found, unread = list[SharedFile](), set[Path]()
        for path, at in stamps.items():
            sums = self._checksums.of(path, at)
            if sums is None and _may_be(wanted, at):
                if self._unreadable.get(path) != at:
                    unread.add(path)
            elif sums is not None and _is(wanted, sums):
                found.append(self._shown(path, sums, wanted, variants.get(path, "")))
        self._read_soon(unread)
        return SharedFiles(files=tuple(found), reading=bool(unread))

    def path(self, sha256: str) -> Path | None:
        """Return the path of a file of this content, if the node has one.

        Only what the last look has found counts; who asks has asked `find` before.
        """
        for path in self._known:
            found = self._checksums.of(path, stamp(path))
            if found and found.sha256 == sha256:
                return path
        return None

    def arrived(self, path: Path, key: str, sums: Sums) -> None:
        """Keep the checksums of a file that came; forget those of files that went."""
        self._checksums.record(path, stamp(path), sums, key)
        self._checksums.forget_all_but(
            each for each in self._checksums.all() if each.exists()
        )

    def _shown(
        self, path: Path, sums: FileSums, wanted: Wanted, variant: str
    ) -> SharedFile:
        try:
            name = path.relative_to(self._settings.models_dir).as_posix()
        except ValueError:
            name = path.name
        exact = wanted.content or wanted.model
        return SharedFile(
            sha256=sums.sha256,
            size=sums.size,
            name=name,
            key=sums.key,
            pieces=sums.pieces if exact else (),
            variant=variant,
        )

    def _variants(self, model: str) -> dict[Path, str]:
        """Return the files of the models of that name, each with its variant."""
        if not model:
            return {}
        name, models = normal(model), scan(self._settings.models_dir).models
        return {
            file: each.variant
            for each in models
            if name
            in {normal(each.variant), normal(each.model), normal(each.path.name)}
            for file in each.files
        }

    def _read_soon(self, paths: Iterable[Path]) -> None:
        self._unread.update(dict.fromkeys(paths))
        if self._unread:
            self._woken.set()

    async def read(self) -> None:
        """Compute the checksums that are wanted, one file after another."""
        while True:
            await self._woken.wait()
            while self._unread:
                path = next(iter(self._unread))
                try:
                    await self._sum(path)
                finally:
                    self._unread.pop(path, None)
            self._woken.clear()

    async def _sum(self, path: Path) -> None:
        ended, before = False, stamp(path)

        def look(_: int) -> None:
            if ended:
                raise InterruptedError("this node ends")

        try:
            sums = await asyncio.to_thread(sums_of, path, look)
        except OSError as error:
            log.debug("cannot read %s: %s", path, error)
            self._unreadable[path] = stamp(path)
            return
        finally:
            ended = True
        if before == stamp(path):
            self._checksums.record(path, before, sums)


def _may_be(wanted: Wanted, at: Stamp) -> bool:
    return bool(wanted.model) or at[1] == wanted.size


def _is(wanted: Wanted, sums: FileSums) -> bool:
    return not wanted.content or wanted.content in {sums.sha256, sums.key}


class FileReader:
    """An open file, of which threads read parts. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self.size = os.fstat(self._handle).st_size

    def read(self, first: int, count: int) -> bytes:
        """Return a part; less where the file ends."""
        return os.pread(self._handle, count, first)

    def close(self) -> None:
        """Close it."""
        os.close(self._handle)
