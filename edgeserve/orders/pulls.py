"""Orders to pull models, how far a pull is, and the files that nodes give each other.

Of what it is told to pull, a node asks other nodes first. Pure.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

PULLS = "/edgeserve/v1/pulls"
FILES = "/edgeserve/v1/files"

PIECE = 4 * 2**20
"""Bytes that one node asks another for at once, and that have a checksum."""

Checksum = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]

PullState = Literal["waiting", "fetching", "done", "failed", "cancelled"]
"""`waiting`: for another pull here, or for a node that fetches the same."""

OVER = frozenset(("done", "failed", "cancelled"))

INTERNET = "internet"
"""Stands for every place that is no node, among those that a file comes from."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A node that may have the files: the URLs at which it was seen."""

    id: str
    name: str = ""
    urls: tuple[str, ...]


class PullOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a node to pull a model.

    `source` is as for `edgeserve pull`, or a model that some peer has. Of the peers
    that pull the same, the one with the lowest id goes to the internet.
    """

    source: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
    revision: str = ""
    peers: tuple[Peer, ...] = ()


class FleetPull(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a balancer to have nodes pull a model: those named, or all that are up."""

    source: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
    revision: str = ""
    nodes: tuple[str, ...] = ()
    everywhere: bool = False


class SharedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a node has and gives to other nodes.

    `name` is its path below the models folder; `key` names its content where its
    source has no SHA-256. `pieces` are the CRC-32 of each `PIECE` of it: they find what
    is damaged, `sha256` proves the whole. `variant` is the model that it is a part of.
    """

    sha256: Checksum
    size: Annotated[int, msgspec.Meta(ge=0)]
    name: str
    key: str = ""
    pieces: tuple[int, ...] = ()
    variant: str = ""


class PullReport(msgspec.Struct, frozen=True, kw_only=True):
    """One pull of a node: the file that it is at, and how far that is.

    `origins` are ids of nodes, or `internet`: where bytes of the file came from.
    `step` says in words what it does; `problem` why it failed; `notes` what is worth
    knowing. Once it is `done`, `path` is where the model lies, and `files` are all of
    it, without the checksums of pieces. `yields`: it cannot look its source up, waits
    for a node that can, and no node has to wait for it.
    """

    id: str
    source: str
    revision: str = ""
    state: PullState
    file: str = ""
    done: int = 0
    total: int = 0
    origins: tuple[str, ...] = ()
    step: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()
    path: str = ""
    files: tuple[SharedFile, ...] = ()
    yields: bool = False

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in OVER


class SharedFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What a node answers about its files; `reading`: it computes checksums of more."""

    files: tuple[SharedFile, ...] = ()
    reading: bool = False
