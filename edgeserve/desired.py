"""Desired state: what a node is told to do with models, and what it reports of that.

A balancer sends the orders to a node; both sides keep nothing else about them. Pure.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

LOAD = "/edgeserve/v1/engines/load"
UNLOAD = "/edgeserve/v1/engines/unload"
DESIRE = "/edgeserve/v1/engines/desired"
REMOVE = "/edgeserve/v1/models/remove"

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
