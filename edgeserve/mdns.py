"""Multicast DNS: one socket on the right network interfaces.

Linux lets a socket join 20 IPv4 groups (`net.ipv4.igmp_max_memberships`), one for each
interface. A machine with Docker easily has more, and whichever are left out are deaf:
so the ones where other machines are come first, and the rest are named in a warning.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from zeroconf import InterfaceChoice, IPVersion
from zeroconf.asyncio import AsyncZeroconf

from edgeserve.config.settings import LOOPBACK
from edgeserve.errors import in_words
from edgeserve.network import Interface, by_name, is_virtual
from edgeserve.runtime.log import warn_once

log = logging.getLogger(__name__)

ROOT = Path("/")
LIMIT = "proc/sys/net/ipv4/igmp_max_memberships"
USUAL_LIMIT = 20

FAMILIES = frozenset((socket.AF_INET, socket.AF_INET6))

UP, UNREACHABLE = 0x1, 0x200
"""Flags of a route."""


@dataclass(frozen=True, kw_only=True)
class HostInterface:
    """An interface, and whether other machines are likely behind it."""

    name: str
    index: int
    ipv4: str | None = None
    ipv6: bool = False
    loopback: bool = False
    default: bool = False
    physical: bool = False
    connected: bool = False


def chosen(root: Path = ROOT) -> list[str | int] | None:
    """Return the interfaces to use, best first, or None where all can be.

    IPv4 ones are named by an address, IPv6 ones by their index. A warning names those
    that are left out.
    """
    allowed = limit(root)
    if allowed is None or _count_interfaces() <= allowed:
        return None
    most = max(1, allowed)
    places = host_interfaces(root)
    ipv4 = [each for each in places if each.ipv4][:most]
    ipv6 = [each for each in places if each.ipv6][:most]
    left_out = [
        each for each in places if each not in ipv4 and (each.ipv4 or each not in ipv6)
    ]
    if left_out:
        warn_once(log, warning(most, left_out))
    addresses = [each.ipv4 for each in ipv4 if each.ipv4]
    return [*addresses, *(each.index for each in ipv6)]


def host_interfaces(root: Path = ROOT) -> list[HostInterface]:
    """Return all interfaces that mDNS may use, the best first."""
    return ranked(_candidates(by_name(), root))


def _count_interfaces() -> int:
    """Count the interfaces with an address, with or without a carrier."""
    try:
        return sum(
            any(each.family in FAMILIES for each in entries)
            for entries in psutil.net_if_addrs().values()
        )
    except OSError:
        return 0


def ranked(places: Sequence[HostInterface]) -> list[HostInterface]:
    """Sort: default route, network cards, loopback, other networks, containers'. Pure.

    Equal ranks by index: the oldest ones are the machine's own.
    """
    return sorted(places, key=lambda each: (_rank(each), each.index))


def _rank(place: HostInterface) -> int:
    if place.default:
        return 0
    if place.physical:
        return 1
    if place.loopback:
        return 2
    if is_virtual(place.name):
        return 5
    return 3 if place.connected else 4


def warning(most: int, left_out: Sequence[HostInterface]) -> str:
    """Return a warning of the interfaces left out, and how to use them. Pure."""
    count, shown = most + len(left_out), ", ".join(each.name for each in left_out[:5])
    if len(left_out) > 5:
        shown += f" and {len(left_out) - 5} more"
    return (
        f"{count} network interfaces, and net.ipv4.igmp_max_memberships lets mDNS use"
        f" {most}: nodes behind {shown} are not discovered;"
        f" `sysctl -w net.ipv4.igmp_max_memberships={max(1024, 2 * count)}` and a"
        " restart of this process allow all"
    )


def limit(root: Path = ROOT) -> int | None:
    """Return how many interfaces a socket may join; None where there is no limit."""
    try:
        return int((root / LIMIT).read_text())
    except (OSError, ValueError):
        return USUAL_LIMIT if (root / "proc/sys/net").exists() else None


def _candidates(
    found: Mapping[str, tuple[Interface, ...]], root: Path
) -> list[HostInterface]:
    defaults = default_routes(root)
    places = list[HostInterface]()
    for name, addresses in found.items():
        folder = root / "sys/class/net" / name
        if not addresses or _exists(folder / "brport"):
            continue  # packets at a bridge's port reach the bridge's interface
        try:
            index = socket.if_nametoindex(name)
        except OSError:  # it vanished after the listing
            continue
        ipv4 = [str(each.ip) for each in addresses if each.version == 4]
        place = HostInterface(
            name=name,
            index=index,
            ipv4=ipv4[0] if ipv4 else None,
            ipv6=len(ipv4) < len(addresses),
            loopback=any(each.ip.is_loopback for each in addresses),
            default=name in defaults,
            physical=_physical(folder),
            connected=_text(folder / "operstate") == "up",
        )
        places.append(place)
    return places


def default_routes(root: Path = ROOT) -> frozenset[str]:
    """Return the interfaces of default routes, IPv4 or IPv6."""
    ipv4 = map(str.split, _text(root / "proc/net/route").splitlines()[1:])
    ipv6 = map(str.split, _text(root / "proc/net/ipv6_route").splitlines())
    found = {row[0] for row in ipv4 if len(row) >= 8 and row[1] == row[7] == "0" * 8}
    return frozenset(found).union(
        row[9]
        for row in ipv6
        if len(row) == 10 and row[1] == "00" and _leads_somewhere(row[8])
    )


def _leads_somewhere(flags: str) -> bool:
    try:
        return int(flags, 16) & (UP | UNREACHABLE) == UP
    except ValueError:
        return False


def _physical(folder: Path) -> bool:
    """Whether it is a network card, or built on one: a bond, a bridge, a VLAN."""
    if _exists(folder / "device"):
        return True
    try:
        return any(_exists(each / "device") for each in folder.glob("lower_*"))
    except OSError:
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace").strip()
    except OSError:
        return ""


Choice = Sequence[str | int | tuple[tuple[str, int, int], int]] | InterfaceChoice
"""zeroconf's type: IPv4 addresses, indexes of IPv6 interfaces, or all."""

# It warns of interfaces that vanish while it lists them, which needs no action.
logging.getLogger("zeroconf").setLevel(logging.ERROR)


@asynccontextmanager
async def multicast(
    *, loopback_only: bool, instead: str
) -> AsyncGenerator[AsyncZeroconf | None]:
    """Run mDNS for the length of the block; at its end announcements are withdrawn.

    With `loopback_only` no packet leaves this machine. Otherwise every interface is
    used, the loopback one too, so that processes on one machine find each other; where
    there are too many, those that `ranked` puts first.
    Yields None where mDNS is not possible, after a warning that says what to use
    `instead`.
    """
    try:
        zeroconf = _opened(loopback_only)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no interface
        log.warning("mDNS is not possible here (%s); %s", in_words(error), instead)
        yield None
        return
    try:
        yield zeroconf
    finally:
        await zeroconf.async_close()


def _opened(loopback_only: bool) -> AsyncZeroconf:
    if loopback_only:
        return AsyncZeroconf(interfaces=[LOOPBACK])
    both = IPVersion.All if socket.has_dualstack_ipv6() else IPVersion.V4Only
    try:
        return _Everywhere(interfaces=_interfaces(), ip_version=both)
    except RuntimeError:  # one vanished after the listing
        return _Everywhere(interfaces=_interfaces(), ip_version=both)


class _Everywhere(AsyncZeroconf):
    """mDNS on every interface, or the best ones, chosen again at each update."""

    async def async_update_interfaces(
        self,
        interfaces: Choice | None = None,
        ip_version: IPVersion | None = None,
        apple_p2p: bool | None = None,
    ) -> None:
        found = _interfaces() if interfaces is None else interfaces
        await super().async_update_interfaces(found, ip_version, apple_p2p)


def _interfaces() -> Choice:
    found = chosen()
    return InterfaceChoice.All if found is None else found
