"""The rest of an answer that broke off, as its client gets it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from balancer.resume import Splice
from balancer.stream import PROGRESS, StreamedError, streamed_error
from edgeserve.config import BalancerSettings

Policy = Literal["same-variant", "any", "off"]
"""Which engines may go on: those of the same variant, of the same model, or none."""

MIGRATIONS = 2
"""Times that one answer may go on elsewhere without growing: what ends one engine after
the other at the same place is the request itself."""

GROWTH = 4096
"""Bytes of events, some sixteen tokens, by which an answer has grown."""

MOST_MIGRATIONS = 8
"""Times that it may go on elsewhere in all."""


def policy_of(settings: BalancerSettings) -> Policy:
    """Take the policy from the settings."""
    match settings.resume:
        case "any" | "off" as policy:
            return policy
        case _:
            return "same-variant"


@dataclass(slots=True)
class Mended:
    """Follows the engine that goes on; see `Listener`. Its content has long begun."""

    splice: Splice
    begun: bool = True
    worked: bool = False
    prompt: int | None = None
    error: StreamedError | None = None

    @property
    def ended(self) -> bool:
        """Whether the client's answer is complete."""
        return self.splice.finished

    def feed(self, piece: bytes) -> bytes:
        """Return the events that the client gets."""
        out = self.splice.feed(piece)
        self.worked = self.worked or bool(out) or PROGRESS in piece
        if self.splice.error is not None and self.error is None:
            self.error = streamed_error(msgspec.json.encode(self.splice.error))
        return out
