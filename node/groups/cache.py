"""Weight cache: the tensors that a worker's process keeps for its next start.

llama.cpp names each file by a hash of its content, and believes it without a look. One
that it was writing when it was killed would give wrong answers for ever. So a file
counts only once its head has loaded the whole model; others are removed before a start.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path

import msgspec

from edgeserve.errors import in_words
from edgeserve.runtime.files import read_json, remove, replace_file

log = logging.getLogger(__name__)

GIB = 2**30
MOST_BYTES = 32 * GIB
"""Bytes that the cache may have."""

FREE_BYTES = 4 * GIB
"""Bytes of the disk that it leaves free."""


class WeightCache:
    """The cache of one node, in a folder. The methods do I/O: call them in a thread."""

    def __init__(
        self, folder: Path, most: int = MOST_BYTES, free: int = FREE_BYTES
    ) -> None:
        self.folder = folder
        self._files = folder / "rpc"
        self._known = folder / "whole.json"
        self._most, self._free = most, free

    def prepare(self, memory: int) -> bool:
        """Make room for a worker's weights; returns whether there is enough.

        Removes what may not be whole, then what was used longest ago.
        """
        try:
            self._files.mkdir(parents=True, exist_ok=True)
            known = self._read()
            for path in self._there():
                if known.get(path.name) != path.stat().st_size:
                    remove(path)
            self._shrink(min(memory, self._most))
            room = shutil.disk_usage(self._files).free - self._free
        except OSError as error:
            log.warning("no cache of weights: %s", in_words(error))
            return False
        return room >= memory and memory <= self._most

    def keep(self) -> None:
        """Note that all files are whole: a head has loaded its model from this node."""
        try:
            sizes = dict[str, int]()
            before = self._read()
            for path in self._there():
                sizes[path.name] = path.stat().st_size
                if before.get(path.name) != sizes[path.name]:
                    _to_disk(path)
            replace_file(self._known, msgspec.json.encode(sizes))
            self._shrink(0)
        except OSError as error:
            log.warning("no cache of weights: %s", in_words(error))

    def _shrink(self, more: int) -> None:
        """Remove the oldest files until `more` bytes have room."""
        there = sorted(self._there(), key=lambda path: path.stat().st_atime)
        size = sum(path.stat().st_size for path in there)
        for path in there:
            free = shutil.disk_usage(self._files).free
            if size + more <= self._most and free >= self._free + more:
                return
            size -= path.stat().st_size
            remove(path)

    def _there(self) -> list[Path]:
        return [path for path in self._files.iterdir() if path.is_file()]

    def _read(self) -> dict[str, int]:
        try:
            return read_json(self._known, dict[str, int])
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.warning("the cache of weights begins anew: %s", in_words(error))
            return {}


def _to_disk(path: Path) -> None:
    """Wait until a file is on the disk: its size alone survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        os.fsync(descriptor)
