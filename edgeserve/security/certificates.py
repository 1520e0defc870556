"""Certificates: each process makes its own key and certificate, and shows them in TLS.

No authority signs them: a machine is known by the fingerprint of its certificate, and
admitted by `edgeserve.security.proof`.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edgeserve.errors import in_words
from edgeserve.runtime.files import in_memory, read_bytes, replace_file

log = logging.getLogger(__name__)

MOST_BYTES = 65536
"""Longest file of a key and its certificate."""

OWNER_ONLY = 0o600

LIFETIME = timedelta(days=50 * 365)
"""Before and after the day on which it is made."""

BEGIN, END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----\n"

ID_DIGITS = 32
"""Hexadecimal digits of a fingerprint that make an id: 128 bits."""


@dataclass(frozen=True)
class Certificate:
    """A certificate with its private key, as PEM, and the fingerprint.

    The fingerprint is the SHA-256 of the certificate's DER form, in lower-case hex.
    """

    pem: bytes = field(repr=False)
    fingerprint: str

    @property
    def id(self) -> str:
        """The id of the machine that holds the key; see `id_of`."""
        return id_of(self.fingerprint)


def id_of(fingerprint: str) -> str:
    """Return the id that belongs to a certificate: the start of its fingerprint.

    So an id cannot be used by a machine that does not hold the key.
    """
    return fingerprint[:ID_DIGITS]


def fingerprint_of(der: bytes) -> str:
    """Return the SHA-256 of a certificate's DER form, in lower-case hex."""
    return hashlib.sha256(der).hexdigest()


def peer_fingerprint(connection: ssl.SSLObject | ssl.SSLSocket) -> str:
    """Return the fingerprint of the certificate that the other side has shown."""
    return fingerprint_of(connection.getpeercert(binary_form=True) or b"")


def shown(fingerprint: str) -> str:
    """Return a fingerprint as people compare it: `3F:09:…`."""
    pairs = (fingerprint[at : at + 2] for at in range(0, len(fingerprint), 2))
    return ":".join(pairs).upper()


def stored_certificate(path: Path) -> Certificate | None:
    """Read a key and its certificate; None where there is none that can be used."""
    try:
        certificate = certificate_in(read_bytes(path, MOST_BYTES))
        server_context(certificate)  # the key is whole, and is the certificate's
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s cannot be used: %s", path, in_words(error))
        return None
    return certificate


def certificate_in(pem: bytes) -> Certificate:
    """Return the first certificate of a PEM text. Raises ValueError."""
    _, found, rest = pem.partition(BEGIN)
    body, closed, _ = rest.partition(END)
    if not (found and closed):
        raise ValueError("it holds no certificate")
    der = ssl.PEM_cert_to_DER_cert((BEGIN + body + END).decode("ascii", "replace"))
    return Certificate(pem, fingerprint_of(der))


def new_certificate(name: str, hosts: Iterable[str] = ()) -> Certificate:
    """Make a key and a certificate for `name`, good for 100 years.

    `hosts` are DNS names by which clients may know the server.
    """
    from cryptography import x509  # 30 ms that a stored certificate saves
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    now = datetime.now(UTC)
    alternative = x509.SubjectAlternativeName(
        [x509.DNSName(each) for each in (SERVER_NAME, *hosts)]
    )
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LIFETIME)  # a machine without a clock is in the past
        .not_valid_after(now + LIFETIME)
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate_in(private + certificate.public_bytes(encoding))


def own_certificate(path: Path, name: str, hosts: Iterable[str] = ()) -> Certificate:
    """Return the certificate stored at `path`, or a new one for `name` and `hosts`.

    One that cannot be stored lasts as long as the process.
    """
    certificate = stored_certificate(path)
    if certificate is None:
        certificate = new_certificate(name, hosts)
        try:
            keep(certificate, path)
        except OSError as error:
            log.warning("cannot write %s: %s", path, in_words(error))
    return certificate


def keep(certificate: Certificate, path: Path) -> None:
    """Store a certificate and its key; only the owner can read them. Raises OSError."""
    replace_file(path, certificate.pem, mode=OWNER_ONLY)


SERVER_NAME = "edgeserve"
"""The server name in every TLS handshake of a fleet; certificates say more."""


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """Return what a server of the fleet channel needs: TLS 1.3 only.

    Raises OSError, of which SSLError is one, where the key cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # a connection that is resumed would show no certificate
    with in_memory(certificate.pem) as path:
        context.load_cert_chain(path)
    return context


def fleet_context() -> ssl.SSLContext:
    """Return what a client of the fleet channel needs: TLS 1.3, any certificate.

    The proof decides whether the certificate's holder belongs to the fleet.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
