"""Proof: both ends of a TLS connection show that they hold the fleet token. Pure.

Neither sends it. Each sends an HMAC over the whole exchange and the fingerprint of the
server's certificate, so that a machine between the two, which has to show another
certificate, can pass nothing on, and an old exchange is of no use. Messages, in order,
of fixed size, before the first byte of HTTP:

    client → server   MAGIC 8, nonce 32, token ids 4 x 8
    server → client   status 1, nonce 32, id of the chosen token 8, HMAC 32
    client → server   HMAC 32

HMAC-SHA256 is RFC 2104; the keys come from the token by HKDF-SHA256, RFC 5869. The
fingerprint takes the part of `tls-server-end-point`, RFC 5929. Old and new tokens may
be valid at the same time: the server chooses the first of the client's that it has.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

MAGIC = b"\0EDGESV1"
"""The first bytes of the client; no HTTP request begins with a zero."""

NONCE = 32
ID = 8
MAC = 32
MOST_KEYS = 4

HELLO = len(MAGIC) + NONCE + MOST_KEYS * ID
REPLY = 1 + NONCE + ID + MAC

KNOWN, UNKNOWN = b"\1", b"\0"


@dataclass(frozen=True)
class FleetKey:
    """What a fleet token becomes: a public id, and secrets for each purpose."""

    id: bytes
    proof: bytes = field(repr=False)
    registration: bytes = field(repr=False)


def fleet_key(token: str) -> FleetKey:
    """Derive the keys of a token."""
    return FleetKey(
        id=_derived(token, b"edgeserve token id", ID),
        proof=_derived(token, b"edgeserve proof", MAC),
        registration=_derived(token, b"edgeserve registration", MAC),
    )


def _derived(token: str, purpose: bytes, length: int) -> bytes:
    """HKDF-SHA256 with an empty salt, RFC 5869, for one block of output."""
    extracted = hmac.digest(bytes(MAC), token.encode(), "sha256")
    return hmac.digest(extracted, purpose + b"\1", "sha256")[:length]


class ProofError(Exception):
    """The other side did not prove that it holds the fleet token."""


class OtherToken(ProofError):
    """The two sides have no fleet token in common."""


class ClientProof:
    """The side that opened the connection."""

    def __init__(self, keys: Sequence[FleetKey], fingerprint: str) -> None:
        """`fingerprint` is that of the certificate that the server has shown."""
        self._keys = keys[:MOST_KEYS]
        self.key: FleetKey | None = None  # that of the token that is proved
        self._fingerprint = bytes.fromhex(fingerprint)
        ids = b"".join(key.id for key in self._keys)
        padding = bytes((MOST_KEYS - len(self._keys)) * ID)
        self.hello = MAGIC + secrets.token_bytes(NONCE) + ids + padding

    def answer(self, reply: bytes) -> bytes:
        """Check the server's reply, and return the last message. Raises ProofError."""
        head, proof = reply[: REPLY - MAC], reply[REPLY - MAC :]
        chosen = head[1 + NONCE :]
        key = next((key for key in self._keys if key.id == chosen), None)
        if head[:1] != KNOWN or key is None:
            raise OtherToken("it has another fleet token")
        transcript = self.hello + head + self._fingerprint
        if not hmac.compare_digest(proof, _mac(key, b"server", transcript)):
            raise ProofError("it does not prove that it holds the fleet token")
        self.key = key
        return _mac(key, b"client", transcript)


class ServerProof:
    """The side that accepted the connection."""

    def __init__(self, keys: Sequence[FleetKey], fingerprint: str) -> None:
        """`fingerprint` is that of this side's certificate."""
        self._keys = {key.id: key for key in keys}
        self._fingerprint = bytes.fromhex(fingerprint)
        self._expected = b""
        self.key: FleetKey | None = None  # that of the token that is proved

    def reply(self, hello: bytes) -> bytes:
        """Return the reply to a client's first message. Raises ProofError."""
        if len(hello) != HELLO or not hello.startswith(MAGIC):
            raise ProofError("it does not begin as the proof does")
        ids = hello[len(MAGIC) + NONCE :]
        offered = (ids[at : at + ID] for at in range(0, len(ids), ID))
        key = next((self._keys[each] for each in offered if each in self._keys), None)
        if key is None:
            raise OtherToken("it has another fleet token")
        head = KNOWN + secrets.token_bytes(NONCE) + key.id
        self.key = key
        transcript = hello + head + self._fingerprint
        self._expected = _mac(key, b"client", transcript)
        return head + _mac(key, b"server", transcript)

    def check(self, proof: bytes) -> None:
        """Check the client's last message. Raises ProofError."""
        if not (self._expected and hmac.compare_digest(proof, self._expected)):
            raise ProofError("it does not prove that it holds the fleet token")


REFUSAL = UNKNOWN + bytes(REPLY - 1)
"""The server's reply where no token is known to both."""


def _mac(key: FleetKey, role: bytes, transcript: bytes) -> bytes:
    return hmac.digest(key.proof, role + transcript, "sha256")


def registration_mac(key: FleetKey, role: str, nonce: str, content: str) -> str:
    """Return the HMAC, in hex, over a balancer's nonce and what is registered.

    `role` is `node` or `balancer`: each proves to the other. A registration is no
    secret, so it needs no encrypted channel. The length before each part keeps a false
    balancer from putting a part of the content into its nonce.
    """
    parts = [each.encode() for each in (role, nonce, content)]
    message = b"".join(b"%d:%s" % (len(each), each) for each in parts)
    return hmac.digest(key.registration, message, "sha256").hex()
