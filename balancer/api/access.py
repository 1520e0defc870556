"""Access control: tokens, API keys, CORS, and the address to listen on."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import structs

from balancer.clients.admission import Admission
from edgeserve.config.settings import EVERYWHERE, LOOPBACK, BalancerSettings
from edgeserve.errors import SettingsError
from edgeserve.http.listening import (
    ALONE,
    ASKED_FOR,
    lines,
    shown_at,
    this_machine_only,
)
from edgeserve.http.server.cors import ANY, Cors
from edgeserve.http.types import Origin
from edgeserve.network import own_names
from edgeserve.security.hosts import HostCheck
from edgeserve.security.tokens import FleetTokens, is_loopback


@dataclass(frozen=True, kw_only=True)
class AccessPolicy:
    """Where to listen, which keys clients must show, and the fleet token."""

    host: str
    tokens: FleetTokens
    clients: Admission


def access_policy(settings: BalancerSettings, clients: Admission) -> AccessPolicy:
    """Read the token. Raises SettingsError where the secrets do not allow the host."""
    tokens = FleetTokens(settings.token_file)
    if settings.approve and not tokens:
        raise SettingsError(
            "--approve lets machines into a fleet, and there is no fleet token yet;"
            " `edgeserve token new` makes one"
        )
    host = listening_host(
        settings.host,
        token=bool(tokens),
        api_keys=clients.keyed,
        anonymous=settings.anonymous,
    )
    return AccessPolicy(host=host, tokens=tokens, clients=clients)


def audience(settings: BalancerSettings, access: AccessPolicy) -> str:
    """Describe which clients are admitted, and how to admit others. Pure."""
    clients = "clients with an API key" if access.clients else "everyone, without a key"
    if not is_loopback(access.host):
        return clients
    if not access.tokens:
        return this_machine_only(ALONE)
    if settings.host:
        return this_machine_only(ASKED_FOR)
    return this_machine_only(NO_KEYS)


def greeting(
    settings: BalancerSettings, access: AccessPolicy, note: str, at: Origin
) -> str:
    """Say where the balancer listens, for which clients, and how machines join. Pure.

    `at`: its address on this machine; `note`: about its certificate.
    """
    at = structs.replace(at, host=access.host)
    text = lines(at, audience(settings, access) + note)
    if not settings.approve:
        return text
    url = structs.replace(at, host=shown_at(at.host)[0]).url
    return f"{text}\n  new machines ask to join with: edgeserve join {url}"


NO_KEYS = (
    "clients have no keys yet; `edgeserve key new` makes one, --anonymous lets"
    " everyone in"
)


def host_check(settings: BalancerSettings, clients: Admission) -> HostCheck:
    """Return what checks the Host field while clients need no key."""
    names = (*own_names(), *settings.allowed_hosts)
    return HostCheck(names, applies=lambda: not clients)


def cors(settings: BalancerSettings, *, keys: bool) -> Cors:
    """Return which web pages may send requests. Pure.

    Where clients need a key, the key decides: a page has only the key that its user
    entered. Without keys, any page opened on this machine could use the models and read
    the answers, so that only pages of this machine may.
    """
    if settings.cors_origins:
        return Cors(frozenset(map(str.lower, settings.cors_origins)), here=False)
    return Cors(frozenset((ANY,)) if keys else frozenset())


def listening_host(
    host: str | None, *, token: bool, api_keys: bool, anonymous: bool
) -> str:
    """Return the address to bind, or raise SettingsError saying what is missing. Pure.

    `host`: as set; None means every address where secrets allow it, else loopback.
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
