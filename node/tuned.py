"""What measuring an engine has found to be better than the untuned settings. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from edgeserve.config import NodeSettings
from edgeserve.wire import Launch


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a launch that was tuned; None leaves a setting as it is."""

    slots: int | None = None
    batch: int | None = None
    ubatch: int | None = None
    threads: int | None = None
    threads_batch: int | None = None
    spin: int | None = None
    kv_type: str | None = None
    flash_attention: bool | None = None
    speculative: str | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """The settings that are tuned, by the launch's own names."""
        return {k: v for k, v in msgspec.structs.asdict(self).items() if v is not None}

    def but_for(self, settings: NodeSettings) -> Tuned:
        """Return what is left where a person has said otherwise."""
        said = [name for name in ("slots", "threads", "batch") if vars(settings)[name]]
        if "batch" in said:
            said.append("ubatch")
        if "threads" in said:
            said.append("threads_batch")
        return self.without(*said)

    def without(self, *names: str) -> Tuned:
        """Return the rest."""
        return msgspec.structs.replace(self, **dict.fromkeys(names))

    def lighter(self) -> Iterator[Tuned]:
        """Yield all of it, then what asks for no more memory than the untuned."""
        yield self
        yield self.without("slots", "batch", "ubatch", "kv_type", "speculative")


def applied(launch: Launch, tuned: Tuned) -> Launch:
    """Return the launch with what was tuned."""
    return msgspec.structs.replace(launch, **tuned.changes)


def difference(untuned: Launch, found: Launch) -> Tuned:
    """Return what turns one launch into the other."""
    return Tuned(
        **{
            name: getattr(found, name)
            for name in Tuned.__struct_fields__
            if getattr(found, name) != getattr(untuned, name)
        }
    )
