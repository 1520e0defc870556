"""DNS discovery: the nodes behind a name, looked up again when the answer expires.

`dns://NAME:PORT` means each address of a name; `dns+srv://NAME` means its SRV records,
which have the ports, too. Names that come and go are hints, as announcements are: a
node that answers stays.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from balancer.discovery.hints import Discovered, OnEvent, Withdrawn, ordered
from edgeserve.config.settings import NodeSettings
from edgeserve.errors import SettingsError
from edgeserve.http.types import Origin
from edgeserve.network import interfaces
from edgeserve.runtime.background import declared
from edgeserve.runtime.files import RepeatedFault

if TYPE_CHECKING:  # dnspython takes 70 ms to import, and few fleets need it
    from dns.asyncresolver import Resolver
    from dns.resolver import Answer

log = logging.getLogger(__name__)

SHORTEST, LONGEST = 2.0, 30.0
"""Seconds between two look-ups: what the records say, within these limits."""

AGAIN_SECONDS = 5.0
"""Seconds until the next look-up after one that failed or found nothing."""

ANSWER_SECONDS = 5.0
"""How long the name servers have for one question."""

AT_ONCE = 16
"""How many names of service records are asked for at the same time."""

IPV6 = 6

SRV_PREFIX = "_edgeserve._tcp."

LOOK_UP = declared("dns look-up")


@dataclass(frozen=True, kw_only=True)
class NodeName:
    """A name whose records are nodes, as `--node` has it. `port` is 0 for SRV."""

    url: str
    name: str
    port: int


def node_name(url: str) -> NodeName | None:
    """Read `dns://NAME:PORT` or `dns+srv://NAME`; None for other URLs.

    Raises SettingsError.
    """
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise SettingsError(f"--node is {url!r}, which is no URL: {error}") from error
    if parts.scheme in {"dns", "dns+srv"} and (why := _no_name(name, port)):
        raise SettingsError(f"--node {url} {why}")
    match parts.scheme:
        case "dns":
            return NodeName(url=url, name=name, port=port or NodeSettings.port)
        case "dns+srv":
            if port:
                why = "has a port; SRV records have the ports: leave it away"
                raise SettingsError(f"--node {url} {why}")
            return NodeName(url=url, name=SRV_PREFIX + name, port=0)
        case _:
            return None


def _no_name(name: str, port: int | None) -> str | None:
    """Say why name servers need not be asked for it."""
    if not name:
        return "names no host: dns://NAME:PORT or dns+srv://NAME does"
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return None
    host = f"[{address}]" if address.version == IPV6 else str(address)
    place = f"{host}:{port}" if port else host
    return f"has an address, and only names are looked up: write --node http://{place}"


class DnsFailed(Exception):
    """The name servers could not tell what is behind a name."""


@dataclass(frozen=True)
class Behind:
    """What is behind a name: the origins of each node by key, and for how long."""

    places: Mapping[str, tuple[Origin, ...]] = field(
        default_factory=dict[str, tuple[Origin, ...]]
    )
    seconds: float = AGAIN_SECONDS
    untold: Mapping[str, str] = field(default_factory=dict[str, str])
    """Nodes, by key, whose addresses the name servers could not tell, and why."""


def system_resolver() -> Resolver:
    """Return a resolver with this machine's settings. Raises DnsFailed."""
    from dns.asyncresolver import Resolver
    from dns.exception import DNSException

    try:
        return Resolver()
    except (DNSException, OSError) as error:
        raise DnsFailed(f"no name server is known: {error}") from error


async def look_up(name: NodeName) -> Behind:
    """Find the nodes behind a name. Raises DnsFailed."""
    # It reads a file, which may have changed since the last look.
    asking = _Asking(await asyncio.to_thread(system_resolver))
    if name.port:
        hosts = await asking.addresses(name.name)
        found: dict[str, tuple[Origin, ...]]
        found = {host: (Origin(host, name.port),) for host in hosts}
    else:
        found = await asking.services(name.name)
    places = {f"{name.url} at {place}": origins for place, origins in found.items()}
    untold = {f"{name.url} at {place}": why for place, why in asking.untold.items()}
    whole = places and not untold
    return Behind(places, asking.seconds if whole else AGAIN_SECONDS, untold)


class _Asking:
    """The questions of one look-up, and for how long all their answers are valid."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._own = interfaces() | interfaces(loopback=True)
        self.seconds = LONGEST
        self.untold: dict[str, str] = {}

    async def addresses(self, name: str, *, search: bool = True) -> tuple[str, ...]:
        """Return the addresses of a name: IPv4, or IPv6 if it has no other."""
        for kind in ("A", "AAAA"):
            answer = await self._answer(name, kind, search=search)
            if answer is None:
                return ()
            if answer.rrset:
                return self._usable(answer.rrset)
        return ()

    async def services(self, name: str) -> dict[str, tuple[Origin, ...]]:
        """Return the origins of each SRV record; one whose name is gone has none."""
        answer = await self._answer(name, "SRV", search=True)
        found: dict[str, tuple[Origin, ...]] = {}
        few = asyncio.Semaphore(AT_ONCE)

        async def find(target: str, port: int) -> None:
            place = f"{target.rstrip('.')}:{port}"
            async with few:
                try:
                    hosts = self._beside(answer, target)
                    hosts = hosts or await self.addresses(target, search=False)
                except DnsFailed as error:
                    self.untold[place] = str(error)
                    return
            if hosts:
                found[place] = tuple(Origin(host, port) for host in hosts)

        records = (answer and answer.rrset) or ()
        await asyncio.gather(*(find(r.target.to_text(), r.port) for r in records))
        return found

    async def _answer(self, name: str, kind: str, *, search: bool) -> Answer | None:
        """Ask; None where the name does not exist."""
        from dns.exception import DNSException
        from dns.resolver import NXDOMAIN, LifetimeTimeout

        try:
            answer = await self._resolver.resolve(
                name,
                kind,
                raise_on_no_answer=False,
                lifetime=ANSWER_SECONDS,
                search=search,
            )
        except NXDOMAIN:
            return None
        except LifetimeTimeout as error:
            why = f"no name server answers within {ANSWER_SECONDS:g} s"
            raise DnsFailed(why) from error
        except (DNSException, OSError) as error:
            raise DnsFailed(str(error)) from error
        if answer.rrset:
            self._valid_for(answer.rrset.ttl)
        return answer

    def _beside(self, answer: Answer | None, target: str) -> tuple[str, ...]:
        """Return the addresses that an answer has beside its SRV records."""
        from dns.rdatatype import AAAA, A

        for kind in (A, AAAA):
            for rrset in answer.response.additional if answer else ():
                if rrset.rdtype == kind and rrset.name.to_text() == target:
                    self._valid_for(rrset.ttl)
                    return self._usable(rrset)
        return ()

    def _valid_for(self, ttl: int) -> None:
        self.seconds = min(self.seconds, max(SHORTEST, float(ttl)))

    def _usable(self, records: Iterable[Any]) -> tuple[str, ...]:
        return ordered((record.address for record in records), self._own)


class NodeNames:
    """Turns what is behind one name into events, as it changes."""

    def __init__(self, name: NodeName, on_event: OnEvent) -> None:
        self._name, self._on_event = name, on_event
        self._known: Mapping[str, tuple[Origin, ...]] = {}
        self._trouble = RepeatedFault(log.warning)

    async def follow(self) -> None:
        """Look the name up, again and again."""
        while True:
            seconds = await self.look()
            await asyncio.sleep(seconds)

    async def look(self) -> float:
        """Look once; returns the seconds until the next look.

        What is known stays where the name servers cannot tell.
        """
        url = self._name.url
        try:
            behind = await look_up(self._name)
        except DnsFailed as error:
            self._trouble.report(f"cannot look up {url}: {error}; known nodes stay")
            return AGAIN_SECONDS
        if behind.untold:
            what, why = min(behind.untold.items())
            self._trouble.report(f"cannot look up {what}: {why}; known nodes stay")
        elif behind.places:
            self._trouble.ended()
        else:
            self._trouble.report(f"{url} has no node: DNS has no {self._name.name}")
        kept = self._known.keys() & behind.untold.keys()
        self._become({key: self._known[key] for key in kept} | dict(behind.places))
        return behind.seconds

    def _become(self, places: Mapping[str, tuple[Origin, ...]]) -> None:
        known, self._known = self._known, places
        for key in known.keys() - places.keys():
            self._on_event(Withdrawn(key))
        for key, origins in places.items():
            if known.get(key) != origins:
                self._on_event(Discovered(key, origins, None, "dns"))
