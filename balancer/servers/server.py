"""Server: one server that is no node, with its key and its certificates."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from balancer.servers.report import id_of, name_of
from edgeserve.config.servers import ServerSetting, ca_of
from edgeserve.errors import SettingsError
from edgeserve.http.types import Origin, Upstream, origin_of
from edgeserve.served import Continued
from edgeserve.servers.asking import bearing, read_key, text_in
from edgeserve.servers.recognition import Recognised


@dataclass(eq=False)
class Server:
    """One server: where it is, and what was found out about it.

    `base` is the path of its URL, without `/v1`. `epoch` counts how often it came back.
    `key` is what it is shown, and `ca` the certificates that it may prove itself with,
    as PEM. `upstream`: how it is reached, if not directly: through its node. `open` are
    the requests that it has of ours, `begun` those of them whose answers have begun;
    `answered` counts all answers that have. `shown`: whether it goes on with a broken
    answer of a model, since it came back.
    """

    setting: ServerSetting
    origin: Origin
    base: str
    found: Recognised | None = None
    key: str = field(default="", repr=False)
    ca: str = ""
    epoch: int = 0
    upstream: Upstream | None = None
    open: set[object] = field(default_factory=set[object], repr=False)
    begun: set[object] = field(default_factory=set[object], repr=False)
    answered: int = 0
    shown: dict[tuple[str, Continued], bool] = field(
        default_factory=dict[tuple[str, Continued], bool], repr=False
    )
    id: str = field(init=False)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.id, self.name = id_of(self.setting), name_of(self.setting)

    def read_files(self) -> None:
        """Read key and certificates, which may have changed. Raises SettingsError."""
        if key := read_key(self.setting):
            self.key = key
        if file := ca_of(self.setting):
            self.ca = text_in(file, self.setting, "certificate")

    def trusting(self) -> ssl.SSLContext | None:
        """Return what verifies it, None where that is as usual. Raises SettingsError.

        Its own certificate is enough, even if it is no authority's and made by hand.
        """
        if not self.ca or not self.origin.tls:
            return None
        try:
            context = ssl.create_default_context(cadata=self.ca)
        except (ssl.SSLError, ValueError) as error:
            raise SettingsError(
                f"the `ca_file` of {self.setting.url} has no certificates in PEM"
            ) from error
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # on by default from 3.13 on
        return context

    def came_back(self, found: Recognised) -> None:
        """Note what it is, now that it answers again."""
        self.found = found
        self.epoch += 1
        self.shown.clear()

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that show it its key."""
        return bearing(self.key)


def server_of(setting: ServerSetting, key: str = "", ca: str = "") -> Server:
    """Return a server that nothing is known of yet. Raises SettingsError."""
    parts = urlsplit(setting.url)
    origin = origin_of(setting.url, 443 if parts.scheme == "https" else 80)
    base = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    server = Server(setting, origin, base, key=key, ca=ca)
    server.read_files()
    server.trusting()
    return server


def tls_sentence(url: str, error: ssl.SSLError) -> str:
    """Say why no TLS connection came about, and what to do. Pure."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        plain = url.replace("https:", "http:", 1)
        return f"{url} does not speak TLS ({error.reason}); try {plain}"
    said = error.verify_message
    match error.verify_code:
        case 62 | 64:  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
            remedy = "name it by the host that its certificate is for"
        case 9 | 10:  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
            remedy = "it needs another one, or one of both clocks is wrong"
        case _:
            remedy = (
                "name a file with it, or with its authority's, with --ca-file or as"
                " `ca_file` in a [[server]] table"
            )
    return f"the certificate of {url} is not trusted here ({said}): {remedy}"
