"""Registration: nodes send the balancer their address over HTTP.

An address is no secret, so the balancer's port for clients serves. Both sides prove
that they hold the fleet token; the balancer then opens the encrypted connection.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re

from msgspec import structs

from balancer.discovery.hints import Discovered, OnEvent, Withdrawn
from edgeserve.config.settings import NodeSettings
from edgeserve.errors import BadRequest, Unauthorized
from edgeserve.http.types import Origin, origin_of
from edgeserve.security.nonces import Nonces
from edgeserve.security.proof import registration_mac
from edgeserve.security.registration import Registration
from edgeserve.security.tokens import FleetTokens

log = logging.getLogger(__name__)

KEPT_SECONDS = 35.0
"""How long a registration counts; nodes renew theirs every 10 s."""

MOST_WARNINGS = 256
"""Peers whose latest warning is remembered."""

UNPROVEN = "it does not prove that it holds the fleet token"
OLDER = (
    f"{UNPROVEN}: a node without the token, or of an older release; copy the token, and"
    " install the same edgeserve on both"
)

_PLAIN = re.compile(r"[!-~]{1,300}")
_HOST = re.compile(r"[0-9A-Za-z_.:%-]{1,253}")


class Registrations:
    """Turns registrations into discovery events, and ends them when they run out."""

    def __init__(
        self, on_event: OnEvent, tokens: FleetTokens, kept: float = KEPT_SECONDS
    ) -> None:
        self._on_event = on_event
        self._tokens = tokens
        self._nonces = Nonces()
        self._kept = kept
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._warnings: dict[str, str] = {}

    def challenge(self) -> str:
        """Return a nonce that one registration may use."""
        return self._nonces.issue()

    def checked(self, registration: Registration) -> str:
        """Check the proof of a registration, and return this balancer's own.

        Raises Unauthorized. Without a fleet token there is nothing to prove.
        """
        if not self._tokens:
            return ""
        nonce, content = registration.nonce, registration.content
        fresh = self._nonces.is_fresh(nonce)
        for key in self._tokens.keys() if fresh else ():
            proof = registration_mac(key, "node", nonce, content)
            if hmac.compare_digest(proof.encode(), registration.proof.encode()):
                self._nonces.use(nonce)
                return registration_mac(key, "balancer", nonce, content)
        raise Unauthorized(UNPROVEN if registration.proof else OLDER)

    def register(self, registration: Registration, peer: str = "") -> str:
        """Register a node, or renew its registration; returns the key.

        A node behind port forwarding knows only its inner address: the address that it
        sends from, `peer`, is tried as well. Raises BadRequest for a bad URL.
        """
        origin, url = _origin(registration.url), registration.url
        origins = [origin]
        key = url
        if peer and peer != origin.host:
            origins.append(structs.replace(origin, host=peer))
            # All Docker containers may have the same inner address.
            key = f"{url} from {peer}"
        if key in self._ends:
            self._ends[key].cancel()
        loop = asyncio.get_running_loop()
        self._ends[key] = loop.call_later(self._kept, self._end, key)
        self._on_event(Discovered(key, tuple(origins), registration.id, "registered"))
        return key

    def warn(self, peer: str, problem: str) -> None:
        """Log why a registration is refused, once until the reason changes."""
        if self._warnings.get(peer) == problem:
            return
        if len(self._warnings) >= MOST_WARNINGS:
            self._warnings.clear()
        self._warnings[peer] = problem
        log.warning("refusing to register a node at %s: %s", peer, problem)

    def _end(self, key: str) -> None:
        del self._ends[key]
        self._on_event(Withdrawn(key))

    def close(self) -> None:
        """Cancel all timers."""
        for handle in self._ends.values():
            handle.cancel()


def _origin(url: str) -> Origin:
    """Read a node's URL. Raises BadRequest."""
    try:
        origin = origin_of(url, NodeSettings.port)
    except ValueError as error:
        why = f"{url[:80]!r} is not the URL of a node: {error}"
        raise BadRequest(why) from error
    scheme = url.partition("://")[0]
    named = _HOST.fullmatch(origin.host) and origin.port
    if scheme not in {"http", "https"} or not named or not _PLAIN.fullmatch(url):
        raise BadRequest(f"{url[:80]!r} is not a URL such as http://192.168.1.20:8090")
    return origin
