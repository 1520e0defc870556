"""Limits: the time and memory that clients of one port may use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from edgeserve.config.settings import SharedSettings
from edgeserve.errors import NoRoom


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bytes, seconds and counts; every one has an answer or an end of its own."""

    head_bytes: int = 65536
    """Longest request head; past it 431."""
    head_seconds: float = 10.0
    """From a head's first byte to its last; past it 408. Also for a TLS handshake."""
    body_seconds: float = 30.0
    """For each `BODY_STEP` bytes of a body; past it 408."""
    idle_seconds: float = 75.0
    """An open connection without a request for so long is closed."""
    stall_seconds: float = 60.0
    """A client that reads none of its answer for so long is disconnected."""
    linger_seconds: float = 2.0
    """How long a refused connection stays open, so that the client can read why."""
    connections: int = 0
    """Connections in all; past it the longest idle one is closed, else 503. 0: as many
    as open files allow."""
    handshakes: int = 256
    """Connections whose TLS handshake is not complete; past it one of them is closed,
    of the address that has most."""
    per_address: int = 1024
    """Connections of one client address; past it 429."""
    requests: int = 0
    """Requests being answered at once; past it 503. 0: no limit of its own."""
    held_bytes: int = 2**30
    """Bytes of bodies received, of all unanswered requests; past it 503."""
    high_water: int = 262144
    """Bytes waiting for a slow client before its upstream is paused."""

    @property
    def sweep_seconds(self) -> float:
        """How often time limits are checked: they are overrun by a quarter at most."""
        shortest = min(
            self.head_seconds,
            self.body_seconds,
            self.idle_seconds,
            self.stall_seconds,
            self.linger_seconds,
        )
        return max(0.005, min(0.5, shortest / 4))


def limits_of(settings: SharedSettings) -> Limits:
    """Take the limits from the settings."""
    return Limits(
        head_bytes=settings.head_limit_kib * KIB,
        head_seconds=settings.head_seconds,
        body_seconds=settings.body_seconds,
        idle_seconds=settings.idle_seconds,
        stall_seconds=settings.stall_seconds,
        per_address=settings.connections_per_address,
        requests=settings.requests_at_once,
        held_bytes=settings.held_limit_mib * KIB * KIB,
    )


KIB = 1024

OWN_BODIES = 2**20
"""Largest body of a request that aiohttp answers, in bytes: ours are small."""

BODY_STEP = 16384
"""Progress, in bytes, that gives a body another `body_seconds`."""

PASSED_BYTES = 2**26
"""After so many bytes of bodies, memory is returned to the system."""


class BodyMemory:
    """Counts the bodies that all connections of one port hold until they are answered.

    `on_relief` is called once many bytes were held and most are freed.
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
        """Stop counting bytes of a body."""
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


class Stall:
    """Follows a buffer that only its client empties."""

    __slots__ = ("_since", "_unsent")

    def __init__(self) -> None:
        self._unsent = 0
        self._since = 0.0

    def lasts(self, unsent: int, now: float, seconds: float) -> bool:
        """Whether the buffer has not changed for `seconds`."""
        if unsent != self._unsent:
            self._unsent, self._since = unsent, now
        return now - self._since >= seconds

    def end(self) -> None:
        """Note that nothing waits for the client."""
        self._unsent = 0
