"""Replica limits: how many engines of a model the fleet shall have, kept in a file.

Each balancer has its own. A damaged file costs the limits, never the service.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from edgeserve.errors import in_words
from edgeserve.runtime.files import read_json
from edgeserve.runtime.stored import store

log = logging.getLogger(__name__)

FILE = "limits.json"

Count = Annotated[int, msgspec.Meta(ge=0)]


class ReplicaLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The fewest and the most loaded engines of a model; None for no limit.

    Raises ValueError where `min` is larger than `max`, or `max` is 0.
    """

    min: Count | None = None
    max: Count | None = None

    def __post_init__(self) -> None:
        """Check them."""
        if self.max == 0:
            raise ValueError("max is 0; `forbidden` keeps a model from being loaded")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min is {self.min}, larger than max, {self.max}")

    @property
    def usual(self) -> bool:
        """Whether there is no limit."""
        return self.min is None and self.max is None


NO_LIMITS = ReplicaLimits()


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file."""

    limits: dict[str, ReplicaLimits]


class FleetLimits:
    """Limits by model or variant, in normal spelling."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._writing = asyncio.Lock()
        self._limits = _read(self._path)

    def all(self) -> Mapping[str, ReplicaLimits]:
        """Return every limit."""
        return self._limits

    def of(self, model: str) -> ReplicaLimits:
        """Return the limits of a model."""
        return self._limits.get(model, NO_LIMITS)

    def bounds(self, model: str) -> tuple[int, int | None]:
        """Return the fewest and the most engines of a model; None for no limit."""
        limits = self.of(model)
        return limits.min or 0, limits.max

    async def put(self, model: str, limits: ReplicaLimits) -> None:
        """Limit a model from now on. Raises NotStored."""
        async with self._writing:
            kept = {key: each for key, each in self._limits.items() if key != model}
            self._limits = kept if limits.usual else {**kept, model: limits}
            await store(self._path, _Stored(limits=dict(self._limits)))


def _read(path: Path) -> Mapping[str, ReplicaLimits]:
    """Read the file; no limits without one, or where it cannot be used."""
    try:
        return read_json(path, _Stored).limits
    except FileNotFoundError:
        return {}
    except OSError as error:
        log.warning(
            "models have no limits: %s: %s; `edgeserve models limit` sets them anew",
            path,
            in_words(error),
        )
        return {}
