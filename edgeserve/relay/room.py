"""How much is being asked at once: requests, and bytes of their bodies. Pure."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from edgeserve.errors import NoRoom
from edgeserve.relay.limits import Limits

PASSED_BYTES = 2**26
"""After so many bytes of bodies their memory is given back, once most are gone."""


class Room:
    """Counts what all connections of one port hold until it is answered.

    `on_relief` is called when much has come and gone.
    """

    __slots__ = (
        "_most_held", "_most_requests", "_passed", "held", "on_relief", "requests"
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self._most_held = limits.held_bytes
        self._most_requests = limits.requests or inf
        self.held = 0
        self.requests = 0
        self._passed = 0
        self.on_relief: Callable[[], None] = lambda: None

    def hold(self, size: int) -> None:
        """Count bytes of a body. Raises NoRoom, and counts nothing, past the limit."""
        held = self.held + size
        if held > self._most_held:
            raise NoRoom("too many large requests are being answered; come back soon")
        self.held = held

    def let_go(self, size: int) -> None:
        """Count them no longer."""
        self.held -= size
        self._passed += size
        if self._passed > PASSED_BYTES > self.held:
            self._passed = 0
            self.on_relief()

    def begin(self, size: int) -> None:
        """Count a request and its last bytes; raises NoRoom past either limit."""
        if self.requests >= self._most_requests:
            raise NoRoom("too many requests are being answered; come back soon")
        self.hold(size)
        self.requests += 1

    def end(self, size: int) -> None:
        """Count it and all its bytes no longer: it is answered."""
        self.requests -= 1
        self.let_go(size)
