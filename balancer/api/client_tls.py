"""Client TLS: the certificate that clients see, given or made by this machine."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from edgeserve.config.paths import OWN_CERTIFICATE
from edgeserve.config.settings import HOST_NAME, BalancerSettings
from edgeserve.network import own_names
from edgeserve.security.certificates import own_certificate, shown
from edgeserve.security.renewal import RenewedContext, port_context


@dataclass(frozen=True)
class ClientTls:
    """`context` is asked for each connection. `note` is for the start message."""

    context: Callable[[], ssl.SSLContext]
    note: str = ""


def client_tls(settings: BalancerSettings) -> ClientTls | None:
    """Return what encrypts clients' connections, None where they are plain.

    Raises SettingsError where the files cannot be used.
    """
    if settings.tls_cert is not None:
        key = settings.tls_key or settings.tls_cert
        return ClientTls(RenewedContext(settings.tls_cert, key))
    if not settings.tls:
        return None
    path = settings.state_dir / OWN_CERTIFICATE
    certificate = own_certificate(path, HOST_NAME, sorted(filter(_is_dns, own_names())))
    context = port_context(certificate.pem)
    note = f"\n  certificate fingerprint {shown(certificate.fingerprint)}"
    return ClientTls(lambda: context, note)


def _is_dns(name: str) -> bool:
    return name.isascii() and len(name) < LONGEST_NAME


LONGEST_NAME = 64
"""Longer labels do not exist in DNS."""
