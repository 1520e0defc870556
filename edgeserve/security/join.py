"""Joining: a machine gets the fleet token after two codes were compared. Pure.

Both sides show a code of six digits; where a person sees one code on both, it goes on.
The code covers the certificate of the machine and a nonce of each side. The balancer is
bound to its nonce before it sees the other one, so that a machine between the two has
nothing to search in: it has one guess in a million for each `edgeserve join`. Messages
of fixed size on a TLS connection that the balancer opens:

    balancer → node   MAGIC 8, knock 16, SHA-256 of the balancer's nonce 32
    node → balancer   nonce 32
    balancer → node   nonce 32
                      both show the code
    balancer → node   verdict 1, length 2, fleet token 1024, filled up with zeros
    node → balancer   RECEIVED 1

The knock comes from the request of the node to be let in. It is no secret; it keeps
strangers, which have not seen the request, from using up the one exchange of a node.
Commitment and short string are those of Vaudenay, "Secure Communications over Insecure
Channels Based on Short Authenticated Strings" (2005).
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256

from edgeserve.security.tokens import LONGEST, MINIMUM, is_sendable

MAGIC = b"\0EDGESJ1"
"""The first bytes of the balancer; no HTTP request begins with a zero."""

KNOCK = 16
NONCE = 32
OPENING = len(MAGIC) + KNOCK + NONCE

VERDICT = 1 + 2 + LONGEST

APPROVED, DENIED, EXPIRED = b"\1", b"\0", b"\2"

RECEIVED = b"\1"
"""The node has the token."""

DIGITS = 6


class JoinError(Exception):
    """The other side does not keep to the exchange."""


class Refused(Exception):
    """The balancer does not let the machine in."""


def join_code(fingerprint: str, balancer: bytes, node: bytes) -> str:
    """Return the code, such as `123-456`, for a certificate and the two nonces."""
    text = b"edgeserve join" + bytes.fromhex(fingerprint) + balancer + node
    number = int.from_bytes(sha256(text).digest()) % 10**DIGITS
    digits = f"{number:0{DIGITS}}"
    return f"{digits[:3]}-{digits[3:]}"


def verdict(state: bytes, token: str = "") -> bytes:
    """Return the balancer's last message. Raises JoinError for a token too long."""
    content = token.encode()
    if len(content) > LONGEST:
        raise JoinError("the fleet token is too long")
    padding = bytes(LONGEST - len(content))
    return state + len(content).to_bytes(2) + content + padding


class BalancerJoin:
    """The side that opened the connection."""

    def __init__(self, fingerprint: str, knock: bytes) -> None:
        """`fingerprint` is that of the certificate that the node has shown."""
        self._fingerprint = fingerprint
        self._nonce = secrets.token_bytes(NONCE)
        self.code = ""
        self.opening = MAGIC + knock + sha256(self._nonce).digest()

    def reveal(self, nonce: bytes) -> bytes:
        """Take the node's nonce, and return this side's. Raises JoinError."""
        if len(nonce) != NONCE or self.code:
            raise JoinError("it does not keep to the exchange")
        self.code = join_code(self._fingerprint, self._nonce, nonce)
        return self._nonce


class NodeJoin:
    """The side that asks to be let in. It allows one exchange."""

    def __init__(self, fingerprint: str) -> None:
        """`fingerprint` is that of this side's certificate."""
        self._fingerprint = fingerprint
        self._nonce = secrets.token_bytes(NONCE)
        self._commitment = b""
        self.knock = secrets.token_bytes(KNOCK)
        self.code = ""

    @property
    def begun(self) -> bool:
        """Whether the one exchange has begun."""
        return bool(self._commitment)

    def answer(self, opening: bytes) -> bytes:
        """Take the balancer's first message, and return the nonce. Raises JoinError."""
        if len(opening) != OPENING or self.begun:
            raise JoinError("it does not begin as a balancer does")
        expected = MAGIC + self.knock
        if not hmac.compare_digest(opening[:-NONCE], expected):
            raise JoinError("it was not asked")
        self._commitment = opening[-NONCE:]
        return self._nonce

    def check(self, nonce: bytes) -> str:
        """Take the balancer's nonce, and return the code. Raises JoinError."""
        if not hmac.compare_digest(sha256(nonce).digest(), self._commitment):
            raise JoinError("its nonce is not the one that it was bound to")
        self.code = join_code(self._fingerprint, nonce, self._nonce)
        return self.code

    def token(self, message: bytes) -> str:
        """Return the fleet token in the last message. Raises Refused, JoinError."""
        state, length = message[:1], int.from_bytes(message[1:3])
        if state == EXPIRED:
            raise Refused("it was not approved in time")
        if state == DENIED:
            raise Refused("it was denied")
        token = message[3 : 3 + length].decode("ascii", "replace")
        lengths = len(message) == VERDICT and length == len(token) >= MINIMUM
        if state != APPROVED or not (self.code and is_sendable(token) and lengths):
            raise JoinError("it sends no fleet token")
        return token
