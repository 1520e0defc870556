"""Renewal: the TLS context for clients, read again when its files change."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from edgeserve.errors import SettingsError, in_words
from edgeserve.runtime.files import RepeatedFault, in_memory, read_bytes, stamp

log = logging.getLogger(__name__)

MOST_BYTES = 2**20
"""Longest file of certificates, or of a key."""

CHECK_SECONDS = 1.0
"""The files are looked at this often, at most, and only when a client connects."""


def port_context(pem: bytes) -> ssl.SSLContext:
    """Return what a server for ordinary clients needs: TLS 1.2 or later.

    `pem` holds the key and the certificates. Raises OSError, of which SSLError is one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    with in_memory(pem) as path:
        # A password, though none is right: else OpenSSL asks at the terminal.
        context.load_cert_chain(path, password=b"")
    return context


class RenewedContext:
    """Returns the context of a certificate and its key in two files, or in one.

    A pair that cannot be used, as while one of two files is new, changes nothing and is
    logged. Raises SettingsError where there is none at the start.
    """

    def __init__(
        self, cert: Path, key: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._files = (key, cert) if key != cert else (cert,)
        self._clock = clock
        self._trouble = RepeatedFault(log.warning)
        self._stamp = self._stamped()
        self._checked = clock()
        try:
            self._context = self._loaded()
        except (OSError, ValueError) as error:
            raise SettingsError(f"TLS cannot be used: {_why(error)}") from error

    def __call__(self) -> ssl.SSLContext:
        """Return the context for a new connection."""
        now = self._clock()
        if now - self._checked >= CHECK_SECONDS:
            self._checked = now
            found = self._stamped()
            if found != self._stamp:
                self._stamp = found
                self._renew()
        return self._context

    def _renew(self) -> None:
        try:
            self._context = self._loaded()
        except (OSError, ValueError) as error:
            self._trouble.report(f"the old certificate stays in use: {_why(error)}")
            return
        self._trouble.ended()
        log.info("clients see the new certificate of %s", self._files[-1])

    def _loaded(self) -> ssl.SSLContext:
        pem = b"\n".join(read_bytes(each, MOST_BYTES) for each in self._files)
        try:
            return port_context(pem)
        except ssl.SSLError as error:
            files = " and ".join(map(str, self._files))
            reason = (error.reason or str(error)).replace("_", " ").lower()
            why = f"{files}: not a certificate with its key, unencrypted ({reason})"
            raise ValueError(why) from error

    def _stamped(self) -> tuple[tuple[int, ...], ...]:
        return tuple(map(stamp, self._files))


def _why(error: Exception) -> str:
    place = error.filename if isinstance(error, OSError) else None
    return f"{place}: {in_words(error)}" if place else in_words(error)
