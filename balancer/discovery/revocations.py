"""Revocations: the nodes that are kept out, in a file of the state folder.

The file is read anew when it changes, so that a process that hands over keeps a node
out, too. One that is damaged stops the start: a revoked node must not return by an
accident of the disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from edgeserve.errors import SettingsError, in_words
from edgeserve.runtime.files import RepeatedFault, read_json, stamp
from edgeserve.runtime.stored import store

log = logging.getLogger(__name__)

FILE = "nodes.json"


class RevokedNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node that is kept out: its name at that time, in seconds since 1970."""

    name: str
    since: float


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file."""

    revoked: dict[str, RevokedNode]


class Revocations:
    """The revoked nodes by id. Raises SettingsError for a file that cannot be used."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = folder / FILE, clock
        self._stamp = stamp(self._path)
        self._writing = asyncio.Lock()
        self._trouble = RepeatedFault(log.warning)
        try:
            self._nodes: Mapping[str, RevokedNode] = _read(self._path)
        except OSError as error:
            raise SettingsError(
                f"cannot read which nodes are revoked: {self._path}: {in_words(error)};"
                " repair it, or move it away to allow all nodes"
            ) from error

    def nodes(self) -> Mapping[str, RevokedNode]:
        """Return the revoked nodes by id, as the file has them now."""
        found = stamp(self._path)
        if found != self._stamp:
            self._stamp = found
            self._read_again()
        return self._nodes

    async def revoke(self, id_: str, name: str) -> None:
        """Keep a node out from now on. Raises NotStored."""
        node = RevokedNode(name=name, since=self._clock())
        async with self._writing:
            await self._become({**self.nodes(), id_: node})

    async def allow(self, id_: str) -> None:
        """Let a node in again. Raises NotStored."""
        async with self._writing:
            kept = {key: node for key, node in self.nodes().items() if key != id_}
            await self._become(kept)

    async def _become(self, nodes: dict[str, RevokedNode]) -> None:
        self._nodes = nodes  # at once: the disk may take its time
        await store(self._path, _Stored(revoked=nodes))
        self._stamp = stamp(self._path)

    def _read_again(self) -> None:
        try:
            self._nodes = _read(self._path)
        except OSError as error:
            why = in_words(error)
            self._trouble.report(
                f"{self._path}: {why}; revoked nodes stay as they were"
            )
        else:
            self._trouble.ended()


def _read(path: Path) -> Mapping[str, RevokedNode]:
    """Read the file; none are revoked without one. Raises OSError."""
    try:
        return read_json(path, _Stored).revoked
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise
        return {}
