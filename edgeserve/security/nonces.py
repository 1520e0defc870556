"""Nonces of a server: each counts once and for a short time.

A nonce carries when it was issued and a MAC of the server. So none is stored before it
is used: a stranger that asks for thousands takes no memory, and no other's nonce.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable

VALID_SECONDS = 30.0


class Nonces:
    """Issues nonces, and tells whether one may still be used."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is in seconds."""
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._used: dict[str, float] = {}  # and when each would end; the latest last

    def issue(self) -> str:
        """Return a nonce, of ASCII letters, digits and dots."""
        said = f"{secrets.token_hex(16)}.{self._clock():.3f}"
        return f"{said}.{self._mac(said)}"

    def is_fresh(self, nonce: str) -> bool:
        """Whether it was issued here, a short time ago, and is not used."""
        said, _, mac = nonce.rpartition(".")
        expected = self._mac(said)
        if not hmac.compare_digest(mac.encode(), expected.encode()):
            return False
        began = float(said.partition(".")[2])
        return self._clock() < began + VALID_SECONDS and nonce not in self._used

    def use(self, nonce: str) -> None:
        """Let a fresh one count no more."""
        now = self._clock()
        while self._used and next(iter(self._used.values())) <= now:
            del self._used[next(iter(self._used))]
        self._used[nonce] = now + VALID_SECONDS

    def _mac(self, said: str) -> str:
        return hmac.digest(self._secret, said.encode(), "sha256").hex()
