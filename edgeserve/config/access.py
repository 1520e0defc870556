"""Access settings: which clients a balancer admits, and what requests may name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeserve.config.limits import setting
from edgeserve.config.values import an_address, an_origin, wrong


@dataclass(frozen=True, kw_only=True)
class AccessSettings:
    """The settings of a balancer that concern its clients."""

    SECTION: ClassVar[str] = ""

    api_key_file: Path | None = setting(
        None,
        "Plain file with admin API keys, one on each line. Default: `api-keys` in the"
        " configuration folder, if that file exists. `edgeserve key new` makes keys"
        " with limits, which need no such file.",
    )
    cors_origins: tuple[str, ...] = setting(
        (),
        "Origin of web pages that may send requests from a browser, such as"
        " https://chat.example; * for all. May be repeated. Default: pages of this"
        " machine, and all pages if clients need a key.",
        flag="--cors-origin",
    )
    approve: bool = setting(
        False,
        "Let machines without the fleet token ask to join, by `edgeserve join`.",
    )
    anonymous: bool = setting(
        False, "Accept clients without a key, also from other machines."
    )
    tls: bool = setting(
        False,
        "Encrypt the connections of clients, with a certificate that this machine makes"
        " itself; its fingerprint is shown at the start.",
    )
    tls_cert: Path | None = setting(
        None,
        "Certificate for clients, with those that sign it (PEM); encrypts as --tls"
        " does. Read again when it changes.",
    )
    tls_key: Path | None = setting(
        None, "The certificate's private key (PEM); default: in the same file."
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        "Name by which clients without a key may call this machine, besides addresses,"
        " localhost and its own names. May be repeated.",
        flag="--allowed-host",
    )
    media_hosts: tuple[str, ...] = setting(
        (),
        "Host from which engines may fetch what a request names by its URL, such as"
        " images; it is trusted with redirects. May be repeated. Default: only data:"
        " URLs.",
        flag="--media-host",
    )

    trusted_proxies: tuple[str, ...] = setting(
        (),
        "Address of a reverse proxy, whose X-Forwarded-For names the client. Slots are"
        " shared between clients; without a key these are addresses. May be repeated.",
        flag="--trusted-proxy",
    )

    def check_access(self) -> None:
        """Refuse values that make no sense together. Raises SettingsError."""
        if self.tls_key and not self.tls_cert:
            wrong(self, "tls_key", "needs tls_cert beside it")
        for origin in self.cors_origins:
            if origin not in {"*", "null"}:
                an_origin(self, "cors_origins", origin)
        for proxy in self.trusted_proxies:
            an_address(self, "trusted_proxies", proxy)
