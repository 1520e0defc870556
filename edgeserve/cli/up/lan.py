"""The LAN: what `edgeserve up --lan` makes and shows, so that others ask and join."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edgeserve.cli.secrets import KEY_NAME, add_key, make_token
from edgeserve.cli.up.qr import fits, qr_lines
from edgeserve.cli.up.welcome import Welcome
from edgeserve.config.paths import config_dir
from edgeserve.config.settings import EVERYWHERE, BalancerSettings, NodeSettings
from edgeserve.errors import SettingsError
from edgeserve.http.listening import shown_at
from edgeserve.http.types import Origin
from edgeserve.security.tokens import is_loopback, read_api_keys


def has_keys(settings: BalancerSettings) -> bool:
    """Whether there are keys of clients beside those in the plain file."""
    from balancer.clients.store import all_keys, store_in

    try:
        return bool(all_keys(store_in(settings.state_dir)))
    except OSError:
        return True  # the balancer lets no client in without one


def keys_file(settings: BalancerSettings) -> Path:
    """Return the plain file of clients' keys, which may be missing."""
    return settings.api_key_file or config_dir() / "api-keys"


def make_secrets(node: NodeSettings, balancer: BalancerSettings) -> list[str]:
    """Make a fleet token and a key where there are none; say what was made.

    Raises CommandError where a file cannot be written, SettingsError where both would
    have different tokens.
    """
    files = {each.token_file or config_dir() / "token" for each in (node, balancer)}
    if len(files) > 1:
        raise SettingsError(
            "node and balancer have different settings for `token_file`; with --lan"
            " they are one fleet"
        )
    made = list[str]()
    token = files.pop()
    if not token.exists():
        make_token(token)
        made.append(f"made a fleet token in {token}")
    keys = keys_file(balancer)
    if not (keys.exists() or balancer.anonymous or has_keys(balancer)):
        add_key(keys, KEY_NAME)
        made.append(f"made a key for clients in {keys}")
    return made


def lan_url(settings: BalancerSettings, port: int) -> str:
    """Return the URL at which others reach the balancer. Raises SettingsError."""
    host = shown_at(settings.host or EVERYWHERE)[0]
    if is_loopback(host):
        raise SettingsError(
            "there is no network but loopback, or `host` in the settings says so;"
            " `edgeserve up` serves this machine alone"
        )
    return Origin(host, port).url


@dataclass(frozen=True, kw_only=True)
class LanWelcome(Welcome):
    """The welcome of an endpoint that the household reaches."""

    here: str
    """Its URL on this machine."""
    shared: bool
    """Whether the key in the file is for clients, and not for this machine alone."""
    terminal: bool
    """Whether it goes to a terminal, which may show the key and a QR code."""

    def text(self) -> str:
        """Lay the lines out."""
        names = ", ".join(str(model["id"]) for model in self.models)
        parts = [
            [f"Serving {names} to this network", "", *self._address()],
            self._phone(),
            self._next_machine(),
            ["Ask it from a terminal on this machine:", f"  {self.curl()}"],
            [
                "Ctrl-C stops it. To keep it running, also after a restart of the"
                " machine:",
                f"  {self.command} service install",
            ],
        ]
        return "\n\n".join("\n".join(part) for part in parts if part)

    def _key(self) -> str:
        shared = self.key_file if self.shared else None
        keys = read_api_keys(shared) if shared else ()
        return keys[0].value if keys else ""

    def _address(self) -> list[str]:
        lines = [f"  address  {self.url}/v1"]
        if self.key_file is None:
            return [*lines, "  key      none is needed"]
        if not self.shared:
            return [*lines, f"  key      one that `{self.command} key new` makes"]
        # A log that this may go to instead of a terminal is often read by others.
        shown = self._key() if self.terminal else f"in {self.key_file}"
        return [*lines, f"  key      {shown}"]

    def _phone(self) -> list[str]:
        """Return a code for the dashboard; the part after # never leaves the phone."""
        key = self._key()
        text = f"{self.url}/#key={key}" if key else f"{self.url}/"
        columns = shutil.get_terminal_size().columns
        if not (self.terminal and _unicode() and fits(text, columns)):
            return []
        note = "The code holds the key." if key else ""
        return [f"For a phone. {note}".rstrip(), "", *qr_lines(text)]

    def _next_machine(self) -> list[str]:
        at = "" if urlsplit(self.here).port == 8080 else f" --url {self.here}"
        name = next((str(each["id"]) for each in self.models), "NAME")
        start = f"edgeserve node start --balancer {self.url}"
        return [
            "On the next machine, with EdgeServe installed:",
            f"  edgeserve join {self.url} && {start}",
            f"or, in a clone of its repository: make join ARGS={self.url}",
            "and here, where both show the same code, let it in and give it the model:",
            f"  {self.command} nodes{at} approve NAME",
            f"  {self.command} pull {name} --everywhere{at}",
        ]


def _unicode() -> bool:
    """Whether standard output can write the blocks that codes are made of."""
    try:
        "█▀▄".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
