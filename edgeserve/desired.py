"""Desired state: what a node is told to do with models, and what it reports of that.

A balancer sends the orders to a node; both sides keep nothing else about them. Of what
it is told to pull a node asks other nodes first. Pure.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

LOAD = "/edgeserve/v1/engines/load"
UNLOAD = "/edgeserve/v1/engines/unload"
DESIRE = "/edgeserve/v1/engines/desired"
REMOVE = "/edgeserve/v1/models/remove"

PULLS = "/edgeserve/v1/pulls"
FILES = "/edgeserve/v1/files"

PIECE = 4 * 2**20
"""Bytes that one node asks another for at once, and that have a checksum."""

Seconds = Annotated[float, msgspec.Meta(ge=0)]


class LoadEngine(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a node to load an engine that is absent; engines that are in its way leave.

    With `drain`, busy ones finish their requests first; without, the node refuses while
    they are busy. Pinned ones never leave. `why` is for logs and reports.
    """

    engine: str
    drain: bool = False
    why: str = ""


class UnloadEngine(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a node to unload an engine. See `LoadEngine` for `drain` and `why`."""

    engine: str
    drain: bool = True
    why: str = ""


class DesiredModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a node shall do with a model; it keeps this over restarts.

    `model` is a model or a variant in normal spelling. `pinned`: always loaded, and
    never evicted. `forbidden`: never loaded. `keep_alive`: unload after so many idle
    seconds; None for the node's setting, 0 for never.
    """

    model: str
    pinned: bool = False
    forbidden: bool = False
    keep_alive: Seconds | None = None

    @property
    def usual(self) -> bool:
        """Whether it says nothing that is not so anyway."""
        return not self.pinned and not self.forbidden and self.keep_alive is None


class ModelProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a desired model is not as desired, and what would help."""

    model: str
    code: Literal["missing", "does_not_fit", "failed", "forbidden"]
    reason: str
    remedy: str


class RemoveModel(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a node to remove a model's files, or, with `preview`, what that would do.

    `model` is a variant, a model of one variant, `model:*`, a file's name, or its path
    in the models folder.
    """

    model: str
    preview: bool = False


class RemovedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file; `path` begins at the models folder. Of a link, only the link goes.

    `bytes` come free; `target` is the file that a link leads to.
    """

    path: str
    bytes: int
    target: str = ""


class RemovedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a node removes: the names of variants, and the files in all."""

    variants: tuple[str, ...]
    files: tuple[RemovedFile, ...]


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
