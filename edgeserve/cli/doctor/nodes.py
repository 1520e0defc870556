"""Nodes: asks those of this machine and those that were announced, and judges them.

A balancer's machine asks each node as a balancer does: the proof of the token comes
first, so that a node with another token, or none, is told apart from one that is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from balancer.discovery.dns import DnsFailed, look_up, node_name
from edgeserve.cli.doctor.balancer import Asked
from edgeserve.cli.doctor.finding import Finding, ok, problem, unknown
from edgeserve.cli.doctor.here import Here
from edgeserve.cli.doctor.interfaces import by_address
from edgeserve.cli.doctor.multicast import Announced
from edgeserve.config.settings import EVERYWHERE, NodeSettings
from edgeserve.errors import BadRequest, EdgeserveError, SettingsError, in_words
from edgeserve.http.channel import opening
from edgeserve.http.channel.opening import FleetChannel
from edgeserve.http.client.pool import upstream
from edgeserve.http.types import Origin, origin_of
from edgeserve.network import asked_at
from edgeserve.runtime.files import read_json
from edgeserve.wire import PROTOCOL, NodeReport, decode
from node.discovery.identity import FILE, StoredIdentity

ASK_SECONDS = 2.0
"""At each address; a node with another token waits for a second before it says so."""

NODE_SECONDS = 5.0
"""For all addresses of a node."""

MOST = 64
"""Nodes that are asked; any machine can announce as many as it likes."""


@dataclass(frozen=True, kw_only=True)
class AskedNode:
    """A node to ask, and its answer: a report, or the reason why there is none."""

    label: str
    urls: tuple[str, ...]
    announced: Announced | None = None
    own: bool = False
    why: str = ""
    report: NodeReport | None = None

    @property
    def strayed(self) -> bool:
        """Whether it announces other addresses than the one it speaks from."""
        at = self.announced
        return at is not None and at.heard_from not in at.addresses


def nodes(here: Here) -> Iterator[Finding]:
    """Check the node of this machine, and those that its balancer would ask."""
    told = set[str]()
    for each in asyncio.run(_answers(here)):
        id_ = each.report.id if each.report else ""
        if id_ not in told:  # one may be listed and announced, too
            yield from peer_findings(each)
        told |= {id_} - {""}


async def _answers(here: Here) -> Sequence[AskedNode]:
    try:
        tokens = here.tokens()
    except SettingsError:
        return ()  # the check of the token tells
    tls = bool(tokens)
    asked = await asyncio.to_thread(lambda: [*_origins(here, tls=tls)][:MOST])
    channel = FleetChannel(tokens) if tokens else None
    async with upstream(connect_seconds=ASK_SECONDS, channel=channel) as client:

        async def ask(peer: AskedNode, origins: Sequence[Origin]) -> AskedNode:
            try:
                async with asyncio.timeout(NODE_SECONDS):
                    return await _asked(client, peer, origins)
            except TimeoutError:
                return replace(peer, why="none of its addresses answers")

        return await asyncio.gather(*(ask(*each) for each in asked))


def _origins(
    here: Here, *, tls: bool
) -> Iterator[tuple[AskedNode, tuple[Origin, ...]]]:
    """Yield each node to ask, and where; waits for the announcements."""
    settings, known = here.node.settings, set[str]()
    if "node" in here.running and settings.port:
        origin = Origin(asked_at(settings.host or EVERYWHERE), settings.port, tls)
        known.add(_own_id(here) or "")
        yield AskedNode(label=settings.name, urls=(origin.url,), own=True), (origin,)
    if "balancer" not in here.roles:
        return
    for url in here.balancer.settings.nodes:
        yield from _listed(url)
    for each in here.heard.result().nodes if here.balancer.settings.discover else ():
        if each.id not in known:
            found = tuple(Origin(at, each.port, tls) for at in _usable(each))
            urls = tuple(origin.url for origin in found)
            yield AskedNode(label=each.label, urls=urls, announced=each), found


def _listed(url: str) -> Iterator[tuple[AskedNode, tuple[Origin, ...]]]:
    """Yield a node of the settings, or those behind a name in DNS."""
    name = node_name(url)
    if name is None:
        yield AskedNode(label=url, urls=(url,)), (origin_of(url, NodeSettings.port),)
        return
    try:
        found = asyncio.run(look_up(name)).places
    except DnsFailed as error:
        yield AskedNode(label=url, urls=(), why=f"DNS cannot tell: {error}"), ()
        return
    if not found:
        yield AskedNode(label=url, urls=(), why=f"DNS has no {name.name}"), ()
    for key, origins in found.items():
        yield AskedNode(label=key, urls=tuple(each.url for each in origins)), origins


def _usable(each: Announced) -> Iterator[str]:
    """Yield the addresses to try; a link-local one needs its interface."""
    for address in each.addresses:
        link_local = address.startswith("fe80:")
        yield f"{address}%{each.interface}" if link_local else address


def _own_id(here: Here) -> str | None:
    try:
        return read_json(here.node.settings.state_dir / FILE, StoredIdentity).id
    except OSError:
        return None


async def _asked(client: Any, peer: AskedNode, origins: Sequence[Origin]) -> AskedNode:
    """Ask at each address in turn, until one answers."""
    if peer.announced and peer.announced.protocol not in {"", str(PROTOCOL)}:
        return peer
    why = peer.why or "it announces no address"
    for origin in origins:
        try:
            async with (
                asyncio.timeout(ASK_SECONDS),
                client.ask(origin, "GET", "/edgeserve/v1/node", {}) as answer,
            ):
                body = await answer.read()
            if answer.status == 200:
                report = decode(body, NodeReport)
                return replace(peer, urls=(origin.url,), report=report)
            why = f"{origin.url} answers {answer.status}"
        except TimeoutError:
            why = f"{origin.url} does not answer within {ASK_SECONDS:g} s"
        except BadRequest as error:
            why = f"{origin.url} {OTHER_REPORT}: {error}"
        except (EdgeserveError, OSError) as error:
            why = in_words(error)
    return replace(peer, why=why)


OTHER_REPORT = "sends a report that this release cannot read"


def peer_findings(peer: AskedNode) -> Iterator[Finding]:
    """Judge one node. Pure."""
    protocol = peer.announced.protocol if peer.announced else ""
    if protocol not in {"", str(PROTOCOL)}:
        said = f"{peer.label} speaks protocol {protocol}, this machine {PROTOCOL}"
        yield problem("version", "protocol", said, SAME)
    elif peer.report is None:
        yield _away(peer)
    else:
        yield ok("nodes", f"{peer.label} answers at {peer.urls[0]}")
        yield from _reported(peer.report)


SAME = "edgeserve --version  # on both: install the same"

CAUSES = (
    (opening.OTHER, "token", "other", "edgeserve token show  # on the other machine"),
    (opening.OLDER, "token", "missing", "edgeserve token new  # and copy it to both"),
    (opening.UNPROVEN, "token", "unproven", "edgeserve token show  # on both"),
    (OTHER_REPORT, "version", "report", SAME),
)
"""Part of a reason → the check that it belongs to, its cause and remedy."""


def cause_of(why: str) -> tuple[str, str, str] | None:
    """Return check, cause and remedy of a reason that is well known. Pure."""
    for part, check, cause, remedy in CAUSES:
        if part in why:
            return check, cause, remedy
    if "speaks protocol" in why:
        return "version", "protocol", SAME
    return None


def _away(peer: AskedNode) -> Finding:
    if known := cause_of(peer.why):
        check, cause, remedy = known
        return problem(check, cause, f"{peer.label}: {peer.why}", remedy)
    if peer.own:
        said = f"the node of this machine runs, and does not answer: {peer.why}"
        return problem("nodes", "silent", said, "edgeserve node start")
    if peer.strayed and peer.announced:
        at = peer.announced
        said = (
            f"{peer.label} is heard on {at.interface} from {at.heard_from}, and"
            f" announces {', '.join(at.addresses) or 'no address'}, where it cannot be"
            f" reached: it listens on another interface"
        )
        remedy = f"edgeserve node start --host ::  # on {peer.label}"
        return problem("nodes", "wrong-interface", said, remedy)
    if peer.announced is None:
        said = f"{peer.label} cannot be reached: {peer.why}"
        remedy = f"edgeserve doctor  # on {peer.label}"
        if not peer.urls:
            remedy = "cat /etc/resolv.conf  # the name servers that were asked"
        return problem("nodes", "unreachable", said, remedy)
    said = f"{peer.label} is announced, but cannot be reached: {peer.why}"
    port = peer.announced.port
    remedy = f"sudo ufw allow {port}/tcp  # on {peer.label}, or its own firewall's way"
    return problem("nodes", "unreachable", said, remedy)


def _reported(report: NodeReport) -> Iterator[Finding]:
    """Yield what a node says of itself."""
    plan = f"edgeserve node plan  # on {report.name}"
    for each in report.problems:
        yield problem("nodes", "problem", f"{report.name}: {each}", plan)
    for each in report.slowed:
        what, _, remedy = each.partition("; ")
        yield problem("nodes", "slowed", f"{report.name}: {what}", remedy)
    for engine in report.engines:
        if engine.state in {"failed", "quarantined"}:
            said = f"{report.name}: {engine.id} is {engine.state}: {engine.reason}"
            yield problem("nodes", f"engine-{engine.state}", said, plan)


def listed(here: Here, found: Asked) -> Iterator[Finding]:
    """Judge the balancer's own list of nodes; ours should be in it."""
    if found.why or found.key != 200:
        return  # another finding tells
    if found.nodes != 200:
        who = "this key" if found.keyed else "who has no key"
        said = f"{who} may not list the balancer's nodes"
        yield unknown("nodes", said, "edgeserve doctor --api-key-file FILE-OF-AN-ADMIN")
        return
    own = _own_id(here) if "node" in here.roles else None
    heard = {each.id for each in _heard(here)}
    for row in found.rows:
        if row.get("id") == own or _matters(row, heard, here):
            yield from row_findings(row)
    if own and own not in {row.get("id") for row in found.rows}:
        yield from _missing(here, found.url)


def _heard(here: Here) -> Sequence[Announced]:
    return here.heard.result().nodes


def _matters(row: Mapping[str, Any], heard: set[str], here: Here) -> bool:
    """Whether a node of the list concerns this machine; an old revocation does not."""
    if "balancer" not in here.roles:
        return False
    return row.get("state") != "revoked" or row.get("id") in heard


def row_findings(row: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge one row. Pure."""
    label = str(row.get("name") or row.get("url") or row.get("id"))
    state, why = str(row.get("state")), str(row.get("problem") or "")
    if state == "revoked":
        said = f"the balancer keeps {label} out: it was revoked"
        remedy = f"edgeserve nodes allow {str(row.get('id'))[:8]}"
        yield problem("nodes", "revoked", said, remedy)
    elif state == "asking":
        said = f"{label} asks to join"
        yield problem("nodes", "asking", said, f"edgeserve nodes approve {label}")
    elif known := cause_of(why):
        check, cause, remedy = known
        yield problem(check, cause, f"{label}: {why}", remedy)
    elif state in {"suspect", "unreachable"}:
        said = f"the balancer cannot reach {label}: {why}"
        yield problem("nodes", "unreachable", said, f"edgeserve doctor  # on {label}")
    else:
        yield ok("nodes", f"the balancer has {label}, {state}")


def _missing(here: Here, url: str) -> Iterator[Finding]:
    if "node" not in here.running:
        yield unknown("nodes", "the node of this machine does not run", START)
        return
    said = (
        "the balancer does not know the node that runs here: its announcement does not"
        " get there"
    )
    yield problem("nodes", "not-known", said, by_address(frozenset(("node",)), url))


START = "edgeserve node start"
