"""Where the balancer may listen: not past this machine without secrets. Pure."""

from __future__ import annotations

from edgeserve.auth import is_loopback
from edgeserve.config import EVERYWHERE, LOOPBACK
from edgeserve.errors import SettingsError


def listening_host(
    host: str | None, *, token: bool, api_keys: bool, anonymous: bool
) -> str:
    """Return the address to bind, or raise SettingsError saying what is missing.

    `host` is what the settings ask for; None leaves the choice to what is secured.
    """
    clients_checked = api_keys or anonymous
    if host is None:
        return EVERYWHERE if token and clients_checked else LOOPBACK
    if is_loopback(host):
        return host
    if not token:
        raise SettingsError(
            f"listening on {host} needs the fleet token: `edgeserve token new` makes"
            " one, --token-file names it; or leave --host away to stay on this machine"
        )
    if not clients_checked:
        raise SettingsError(
            f"listening on {host} needs API keys for clients: `edgeserve key new` makes"
            " one, --api-key-file names the file; --anonymous lets everyone in"
        )
    return host
