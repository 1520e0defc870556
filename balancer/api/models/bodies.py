"""Bodies of orders about models, as admins send them. Pure."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from balancer.lifecycle.replicas.limits import Count
from edgeserve.orders.engines import Seconds


class LoadOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `load`. `node`: a name or an id, None for the best."""

    node: str | None = None
    drain: bool = False


class UnloadOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `unload`. `node`: None for every one."""

    node: str | None = None
    drain: bool = True


class PinOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `pin`; `off` ends it."""

    node: str | None = None
    off: bool = False


class LimitOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `limit`: what is absent stays, null is no limit.

    `min` and `max` are of the fleet; the others of `node`, or of all nodes with it.
    """

    node: str | None = None
    min: Count | UnsetType | None = UNSET
    max: Count | UnsetType | None = UNSET
    keep_alive: Seconds | UnsetType | None = UNSET
    forbidden: bool | UnsetType = UNSET
