"""What one client may ask of our patience and memory."""

from __future__ import annotations

from dataclasses import dataclass

from edgeserve.config import SharedSettings


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bytes, seconds and counts; every one has an answer or an end of its own."""

    head_bytes: int = 65536
    """Longest request head; past it 431."""
    head_seconds: float = 10.0
    """From a head's first byte to its last; past it 408."""
    body_seconds: float = 30.0
    """For each `BODY_STEP` bytes of a body; past it 408."""
    idle_seconds: float = 75.0
    """A kept connection without a request is closed."""
    stall_seconds: float = 60.0
    """A client that takes nothing of what waits for it is dropped."""
    linger_seconds: float = 2.0
    """How long we listen on after a refusal, so that the client gets to read it."""
    connections: int = 0
    """Connections in all; past it the longest idle one makes room, else 503. 0: as many
    as open files allow."""
    per_address: int = 1024
    """Connections of one client address; past it 429."""
    requests: int = 0
    """Requests being answered at once; past it 503. 0: no limit of its own."""
    held_bytes: int = 2**30
    """Bytes of bodies that came, of all requests not answered yet; past it 503."""
    high_water: int = 262144
    """Bytes waiting for a slow client before its upstream is paused."""

    @property
    def sweep_seconds(self) -> float:
        """How often to look at the clock: limits are overrun by a quarter at most."""
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
        # One body that is allowed must find room.
        held_bytes=max(settings.held_limit_mib, settings.body_limit_mib) * KIB * KIB,
    )


KIB = 1024

OWN_BODIES = 2**20
"""Largest body of a request that aiohttp answers, in bytes: ours are small."""

BODY_STEP = 16384
"""Progress, in bytes, that gives a body another `body_seconds`."""
