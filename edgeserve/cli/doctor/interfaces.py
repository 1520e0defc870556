"""Discovery: judges, interface by interface, why nodes are not found by mDNS."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeserve.cli.doctor.finding import Finding, ok, problem, unknown
from edgeserve.cli.doctor.here import Here
from edgeserve.cli.doctor.multicast import Heard, Listening
from edgeserve.mdns import default_routes, limit
from edgeserve.network import is_virtual

VPN = re.compile(r"tun\d|tap\d|wg|ppp|utun|tailscale|zt|nordlynx|proton|ipsec")

CONTAINERS = (Path("/.dockerenv"), Path("/run/.containerenv"))

FIREWALLS = {
    "ufw": "sudo ufw allow 5353/udp",
    "firewall-cmd": (
        "sudo firewall-cmd --permanent --add-service=mdns && sudo firewall-cmd --reload"
    ),
    "nft": "sudo nft list ruleset | grep -n -e drop -e reject -e policy",
    "iptables": "sudo iptables -S | grep -e DROP -e REJECT",
}
"""Program → the command that lets mDNS through, or shows what does not."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a listener knows of this machine beside the packets."""

    roles: frozenset[str]
    token: bool
    listed: bool
    """Whether the settings name all peers, so that mDNS is not needed."""
    heard: Heard
    url: str | None = None
    """The balancer that was named."""
    limit: int | None = None
    vpn: str = ""
    """The interface of a VPN that has the default route."""
    container: bool = False
    firewall: str = "ip rule; ip route show table all | grep -e prohibit -e blackhole"


def multicast(here: Here) -> Iterator[Finding]:
    """Check that announcements leave this machine, and those of others arrive."""
    yield from findings(surroundings(here))


def surroundings(here: Here) -> Surroundings:
    """Gather the facts; waits for the listener."""
    node, balancer = here.node.settings, here.balancer.settings
    needed = ("node" in here.roles and node.advertise and not node.balancers) or (
        "balancer" in here.roles and balancer.discover and not balancer.nodes
    )
    tunnels = sorted(each for each in default_routes() if VPN.match(each))
    found = [command for name, command in FIREWALLS.items() if shutil.which(name)]
    return Surroundings(
        roles=here.roles,
        token=os.path.lexists(here.token_file),
        listed=not needed,
        heard=here.heard.result(),
        url=here.url,
        limit=limit(),
        vpn=", ".join(tunnels),
        container=any(map(os.path.exists, CONTAINERS))
        or "KUBERNETES_SERVICE_HOST" in os.environ,
        firewall=(found or [Surroundings.firewall])[0],
    )


def findings(facts: Surroundings) -> Iterator[Finding]:
    """Judge all interfaces, then what was heard. Pure."""
    if not facts.token:
        said = "without a fleet token, mDNS stays on this machine"
        yield unknown("multicast", said)
        return
    heard = facts.heard
    if heard.taken:
        said = f"port 5353 of mDNS cannot be used: {heard.taken}"
        yield problem("multicast", "port", said, "sudo ss -ulpn 'sport = 5353'")
        return
    outward = [each for each in heard.listening if _is_outward(each)]
    if not outward:
        said = "there is no network but loopback, or none has an address"
        yield problem("multicast", "no-network", said, "ip -br address")
        return
    faults = [*_limited(facts, outward), *_faulty(facts, outward)]
    yield from faults
    yield from _silence(facts, outward, faults)


def _is_outward(each: Listening) -> bool:
    """Whether nodes may be behind it; a tunnel passes no multicast, and need not."""
    name = each.place.name
    return not (each.place.loopback or is_virtual(name) or VPN.match(name))


def _limited(facts: Surroundings, outward: Sequence[Listening]) -> Iterator[Finding]:
    """Yield the interfaces that the kernel's limit of groups leaves out."""
    ipv4 = [each for each in facts.heard.listening if each.place.ipv4]
    used = len(ipv4) if facts.limit is None else facts.limit
    left_out = [
        each
        for number, each in enumerate(ipv4)
        if each in outward and (number >= used or each.joined == errno.ENOBUFS)
    ]
    if not left_out:
        return
    names = ", ".join(each.place.name for each in left_out)
    yield problem(
        "multicast",
        "igmp-limit",
        f"{_why(facts.limit)}, so that mDNS is deaf on {names}",
        "sudo sysctl -w net.ipv4.igmp_max_memberships=1024",
    )


def _why(limit: int | None) -> str:
    if limit is None:
        return "the kernel lets a socket join no more networks"
    return f"net.ipv4.igmp_max_memberships is {limit}"


def _faulty(facts: Surroundings, outward: Sequence[Listening]) -> Iterator[Finding]:
    for each in outward:
        name = each.place.name
        if not each.multicast:
            said = f"multicast is switched off on {name}"
            remedy = f"sudo ip link set dev {name} multicast on"
            yield problem("multicast", "interface-off", said, remedy)
        elif each.sent:
            why = os.strerror(each.sent)
            said = f"mDNS packets may not leave {name} ({why}): a firewall, or a rule"
            yield problem("multicast", "firewall-out", said, facts.firewall)
        elif each.joined and each.joined != errno.ENOBUFS:
            said = f"{name} cannot join mDNS's group: {os.strerror(each.joined)}"
            yield problem("multicast", "join", said, f"ip maddress show dev {name}")
        elif not each.joined and not each.echoed:
            said = f"mDNS packets do not arrive on {name}: a firewall drops UDP 5353"
            yield problem("multicast", "firewall-in", said, facts.firewall)


def _silence(
    facts: Surroundings, outward: Sequence[Listening], faults: Sequence[Finding]
) -> Iterator[Finding]:
    """Judge who was heard; a fault explains a silence better than a guess does."""
    heard, others = facts.heard, {one for each in outward for one in each.others}
    names = ", ".join(each.place.name for each in outward if each.others or not others)
    nodes = sorted({each.label for each in heard.nodes})
    away = sorted({each.label for each in heard.nodes if each.heard_from in others})
    if away:
        yield ok("multicast", f"heard on {names}: {', '.join(away)}")
    elif heard.doctors:
        doctors = ", ".join(sorted(heard.doctors))
        yield ok("multicast", f"the doctor on {doctors} is heard on {names}")
    elif faults:
        return
    elif others:
        yield _no_nodes(facts, names, len(others))
    else:
        yield _deaf(facts, names, nodes)


def _no_nodes(facts: Surroundings, names: str, count: int) -> Finding:
    said = (
        f"mDNS works on {names} ({count} other machine{'s' * (count > 1)} heard), and"
        " no node of another machine answers"
    )
    if "balancer" not in facts.roles or facts.listed or facts.heard.nodes:
        return ok("multicast", said)
    return problem("multicast", "no-node", said, "edgeserve node start  # on the node")


def _deaf(facts: Surroundings, names: str, nodes: Sequence[str]) -> Finding:
    """Judge that nothing of another machine was heard."""
    said = f"no other machine is heard by mDNS on {names}"
    if nodes:
        said += f", only {', '.join(nodes)} of this one"
    if facts.listed:
        return unknown("multicast", f"{said}; the settings name the peers")
    remedy = by_address(facts.roles, facts.url)
    if facts.container:
        said += "; a container's own network passes no multicast"
        return problem("multicast", "container", said, remedy)
    if facts.vpn:
        said += f"; the default route leads through {facts.vpn}, a VPN, which may"
        said += " keep this machine's own network away"
        return problem("multicast", "vpn", said, remedy)
    if "balancer" not in facts.roles or nodes:
        again = "edgeserve doctor  # on the other machine, at the same time"
        return unknown("multicast", said, again)
    said += "; no node runs there, or the network drops multicast"
    return problem("multicast", "silence", said, remedy)


def by_address(roles: frozenset[str], url: str | None) -> str:
    """Return the command that needs no multicast; `url`: of the balancer. Pure."""
    if "balancer" in roles:
        return "edgeserve balancer start --node http://ADDRESS-OF-NODE:8090"
    url = url or "http://ADDRESS-OF-BALANCER:8080"
    return f"edgeserve node start --balancer {url}"
