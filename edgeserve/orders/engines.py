"""Orders to load engines, the desired state of models, and what is not as desired.

A node keeps what it is told; a balancer keeps nothing of it. Pure.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

LOAD = "/edgeserve/v1/engines/load"
UNLOAD = "/edgeserve/v1/engines/unload"
DESIRE = "/edgeserve/v1/engines/desired"

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
