"""Rate limits: token buckets for each key, and the header fields that tell them. Pure.

A bucket holds one minute's worth and fills continuously. A request is counted when it
is let in; its tokens are known when it has ended, and are charged then. So a key can
exceed its tokens by what it has running, and waits for longer afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

from balancer.clients.keys import ClientKey
from edgeserve.errors import EdgeserveError

What = Literal["requests", "tokens"]

MINUTE = 60.0

BUSY_SECONDS = 1.0
"""When to try again after too many requests at once: as soon as one of them ends."""


class RateLimited(EdgeserveError):
    """The key has used up a limit."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, what: What, limit: str, seconds: float) -> None:
        self.kind = what
        self.retry_after = max(1, ceil(seconds))
        super().__init__(
            f"this key may {limit}; come back in {self.retry_after} s, or ask for a"
            " higher limit"
        )


@dataclass(slots=True)
class Bucket:
    """So many may be taken a minute; `level` is what was left at the time `at`."""

    per_minute: int
    level: float
    at: float

    def left(self, now: float) -> float:
        """Fill it up to now; return what is left, below 0 after a late charge."""
        filled = self.level + (now - self.at) * self.per_minute / MINUTE
        self.level, self.at = min(float(self.per_minute), filled), now
        return self.level

    def resized(self, per_minute: int, now: float) -> None:
        """Change the limit; what was taken stays taken."""
        taken = self.per_minute - self.left(now)
        self.per_minute, self.level = per_minute, per_minute - taken

    def seconds_until(self, wanted: float) -> float:
        """Seconds from the last call of `left` until so much is there."""
        return max(0.0, wanted - self.level) * MINUTE / self.per_minute


@dataclass(slots=True)
class KeyLoad:
    """What one key uses now."""

    buckets: dict[What, Bucket] = field(default_factory=dict[What, Bucket])
    running: int = 0

    def enter(self, key: ClientKey, now: float, fields: dict[str, str]) -> None:
        """Count a request of the key, or raise RateLimited; either fills `fields`."""
        requests = self._bucket("requests", key.requests_per_minute, now)
        tokens = self._bucket("tokens", key.tokens_per_minute, now)
        try:
            self._check(key, requests, tokens, now)
            if requests is not None:
                requests.level -= 1
            self.running += 1
        finally:
            for what, bucket in self.buckets.items():
                fields.update(_told(what, bucket))

    def _check(
        self, key: ClientKey, requests: Bucket | None, tokens: Bucket | None, now: float
    ) -> None:
        if requests is not None and requests.left(now) < 1:
            limit = f"send {requests.per_minute:,} requests a minute"
            raise RateLimited("requests", limit, requests.seconds_until(1))
        if tokens is not None and tokens.left(now) <= 0:
            limit = f"use {tokens.per_minute:,} tokens a minute"
            raise RateLimited("tokens", limit, tokens.seconds_until(1))
        if key.at_once and self.running >= key.at_once:
            limit = f"have {key.at_once:,} requests at once"
            raise RateLimited("requests", limit, BUSY_SECONDS)

    def _bucket(self, what: What, per_minute: int, now: float) -> Bucket | None:
        found = self.buckets.get(what)
        if not per_minute:
            if found is not None:
                del self.buckets[what]
            return None
        if found is None:
            found = self.buckets[what] = Bucket(per_minute, float(per_minute), now)
        elif found.per_minute != per_minute:
            found.resized(per_minute, now)
        return found


class RateLimits:
    """The load of each limited key. They begin anew with the process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds, as `RequestLog.clock`."""
        self._clock = clock
        self._loads: dict[str, KeyLoad] = {}

    def entering(self, key: ClientKey, fields: dict[str, str]) -> Entering:
        """Count a request for the length of a block.

        Entering raises RateLimited; `fields` gets the header fields of the answer.
        """
        if not key.limited:
            return Entering(None, key, fields, 0.0)
        load = self._loads.get(key.id)
        if load is None:
            load = self._loads[key.id] = KeyLoad()
        return Entering(load, key, fields, self._clock())

    def charge(self, key: ClientKey, tokens: int) -> None:
        """Take the tokens of a request that has ended."""
        load = self._loads.get(key.id) if key.tokens_per_minute else None
        if load is not None and (bucket := load.buckets.get("tokens")) is not None:
            bucket.left(self._clock())
            bucket.level -= tokens


@dataclass(slots=True)
class Entering:
    """One request of a key, inside while its block runs."""

    load: KeyLoad | None
    key: ClientKey
    fields: dict[str, str]
    now: float

    def __enter__(self) -> None:
        """Count it; see `RateLimits.entering`."""
        if self.load is not None:
            self.load.enter(self.key, self.now, self.fields)

    def __exit__(self, *_: object) -> None:
        """Stop counting it."""
        if self.load is not None:
            self.load.running -= 1


def _told(what: What, bucket: Bucket) -> dict[str, str]:
    """Return OpenAI's header fields for a limit."""
    full = bucket.seconds_until(bucket.per_minute)
    return {
        f"x-ratelimit-limit-{what}": str(bucket.per_minute),
        f"x-ratelimit-remaining-{what}": str(max(0, int(bucket.level))),
        f"x-ratelimit-reset-{what}": duration(full),
    }


def duration(seconds: float) -> str:
    """Render a time as OpenAI does: `20ms`, `1.5s`, `6m0s`, `1h2m3s`."""
    if seconds < 1:
        return f"{ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{ceil(seconds * 1000) / 1000:g}s"
    minutes, left = divmod(ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{left}s" if hours else f"{minutes}m{left}s"
