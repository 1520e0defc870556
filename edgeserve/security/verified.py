"""Verified connections of commands: to a server whose certificate is trusted."""

from __future__ import annotations

import http.client
import ssl


class Verified(http.client.HTTPSConnection):
    """A connection to a server whose certificate has been verified.

    Only one with `fingerprint` is trusted, if that is given; else the one with the
    fingerprint `own`, and each that is signed by an authority known on this machine.
    `seen` is the fingerprint of the server's certificate, where it was looked at.
    """

    def __init__(
        self, netloc: str, seconds: float | None, fingerprint: str, own: str
    ) -> None:
        super().__init__(netloc, timeout=seconds, context=ssl.create_default_context())
        self._fingerprint = fingerprint
        self._trusted = {each for each in (fingerprint, own) if each}
        self.seen = ""

    def connect(self) -> None:
        """Connect. Raises SSLCertVerificationError where it is not trusted."""
        if self._trusted and self._looked():
            return
        if self._fingerprint:
            raise ssl.SSLCertVerificationError("another certificate")
        try:
            super().connect()
        except ssl.SSLCertVerificationError:
            self._looked()
            self.close()
            raise

    def _looked(self) -> bool:
        """Connect to see the certificate; stays connected if it is trusted."""
        # Imported here: it would slow down `--help`.
        from edgeserve.security.certificates import peer_fingerprint

        any_ = ssl.create_default_context()
        any_.check_hostname = False
        any_.verify_mode = ssl.CERT_NONE
        http.client.HTTPConnection.connect(self)
        sock = any_.wrap_socket(self.sock, server_hostname=self.host)
        self.sock = sock
        self.seen = peer_fingerprint(sock)
        if self.seen in self._trusted:
            return True
        self.close()
        return False
