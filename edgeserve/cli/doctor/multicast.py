"""Multicast: asks for nodes on each interface, and listens who answers.

Each interface gets a socket of its own, so that what works on one does not hide what
fails on another. A question carries a number, by which its own echo is known: a packet
that leaves an interface comes back through this machine's firewall. Nothing is
announced, and a node or balancer that runs here loses nothing: the sockets are bound to
the group, so that no packet for one process reaches another.
"""

from __future__ import annotations

import errno
import ipaddress
import secrets
import selectors
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from edgeserve.mdns import HostInterface, host_interfaces
from edgeserve.network import addresses
from edgeserve.wire import SERVICE

GROUP, GROUP6, PORT = "224.0.0.251", "ff02::fb", 5353
DOCTOR = "_edgeserve-dr._udp.local."
"""Questions under this name are asked by doctors only, and nothing answers them."""

SECONDS = 2.6
ASKED_AT = (0.0, 0.6, 1.6)
"""Answers come within 120 ms; one packet may be lost, and two in Wi-Fi, too."""

MULTICAST_ALL = 49
"""Linux's IP_MULTICAST_ALL: without it, a socket gets what others have joined."""

BYTES = 9000


@dataclass(frozen=True, kw_only=True)
class Announced:
    """A node as it was announced; `heard_from` is the address that the packet had."""

    name: str
    id: str
    protocol: str
    port: int
    addresses: tuple[str, ...]
    heard_from: str
    interface: str

    @property
    def label(self) -> str:
        """The name that people gave it."""
        return self.name or self.id[:8]


@dataclass(kw_only=True)
class Listening:
    """One interface: why it could not be used, and what came in there."""

    place: HostInterface
    multicast: bool = True
    joined: int = 0
    """errno of joining the group; 0 where that worked."""
    sent: int = 0
    """errno of sending to the group."""
    echoed: bool = False
    others: set[str] = field(default_factory=set[str])
    """Addresses of other machines from which anything was heard."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What all interfaces brought. `taken`: why the port of mDNS cannot be used."""

    listening: tuple[Listening, ...] = ()
    nodes: tuple[Announced, ...] = ()
    doctors: frozenset[str] = frozenset()
    """Addresses of other machines on which `edgeserve doctor` runs now."""
    taken: str = ""


def listen(seconds: float = SECONDS) -> Heard:
    """Ask on each interface, by IPv6 only where it has no IPv4 address, and listen."""
    import psutil

    flags = {name: each.flags for name, each in psutil.net_if_stats().items()}
    places = [Listening(place=each) for each in host_interfaces()]
    for each in places:
        known = flags.get(each.place.name, "")
        each.multicast = each.place.loopback or "multicast" in known or not known
    with ExitStack() as stack:
        sockets = dict[socket.socket, Listening]()
        try:
            for each in places:
                sockets[stack.enter_context(_socket(each))] = each
        except OSError as error:
            return Heard(listening=tuple(places), taken=error.strerror or str(error))
        return _conversation(sockets, seconds)


def _socket(at: Listening) -> socket.socket:
    """Open the socket of one interface; a group that cannot be joined is noted."""
    family = socket.AF_INET if at.place.ipv4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform != "linux":  # there, one socket would get another's packets
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setblocking(False)
        (_bind4 if at.place.ipv4 else _bind6)(sock, at.place)
    except OSError:
        sock.close()
        raise
    try:
        (_join4 if at.place.ipv4 else _join6)(sock, at.place)
    except OSError as error:
        at.joined = error.errno or errno.EIO
    return sock


def _bind4(sock: socket.socket, place: HostInterface) -> None:
    sock.bind((GROUP, PORT))
    here = socket.inet_aton(place.ipv4 or "")
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    with suppress(OSError):  # not Linux: the addresses of senders tell enough
        sock.setsockopt(socket.IPPROTO_IP, MULTICAST_ALL, 0)


def _join4(sock: socket.socket, place: HostInterface) -> None:
    group = socket.inet_aton(GROUP) + socket.inet_aton(place.ipv4 or "")
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)


def _bind6(sock: socket.socket, place: HostInterface) -> None:
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((GROUP6, PORT, 0, place.index))
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, place.index)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)


def _join6(sock: socket.socket, place: HostInterface) -> None:
    group = socket.inet_pton(socket.AF_INET6, GROUP6) + struct.pack("@I", place.index)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)


def _conversation(sockets: Mapping[socket.socket, Listening], seconds: float) -> Heard:
    own, number = addresses() | addresses(loopback=True), secrets.token_hex(8)
    packets, found = question(number), Collected(own, number)
    began = time.monotonic()
    waiting = list(ASKED_AT)
    with selectors.DefaultSelector() as selector:
        for sock, at in sockets.items():
            selector.register(sock, selectors.EVENT_READ, at)
        while (past := time.monotonic() - began) < seconds:
            if waiting and past >= waiting[0]:
                waiting.pop(0)
                for sock, at in sockets.items():
                    _send(sock, packets, at)
            until = waiting[0] if waiting else seconds
            for key, _ in selector.select(max(0.0, min(until, seconds) - past)):
                _receive(key.fileobj, key.data, found)  # type: ignore[arg-type]  # a socket was registered
    return Heard(
        listening=tuple(sockets.values()),
        nodes=tuple(found.nodes()),
        doctors=frozenset(found.doctors),
    )


def _send(sock: socket.socket, packets: Iterable[bytes], at: Listening) -> None:
    to = (GROUP, PORT) if at.place.ipv4 else (GROUP6, PORT, 0, at.place.index)
    try:
        for packet in packets:
            sock.sendto(packet, to)
    except OSError as error:
        at.sent = error.errno or errno.EIO


def _receive(sock: socket.socket, at: Listening, found: Collected) -> None:
    try:
        data, (host, *_) = sock.recvfrom(BYTES)
    except OSError:
        return
    found.take(data, str(host), at)


def question(number: str) -> list[bytes]:
    """Return the packets that ask for nodes, and for our own number. Pure."""
    from zeroconf import DNSOutgoing, DNSQuestion  # type: ignore[attr-defined]  # not in its __all__

    out = DNSOutgoing(0)  # a query
    out.add_question(DNSQuestion(SERVICE, TYPE_PTR, CLASS_IN))
    out.add_question(DNSQuestion(f"{number}.{DOCTOR}", TYPE_PTR, CLASS_IN))
    # Answered by all that announce anything: printers, televisions, telephones.
    out.add_question(DNSQuestion("_services._dns-sd._udp.local.", TYPE_PTR, CLASS_IN))
    return out.packets()


TYPE_PTR, CLASS_IN = 12, 1


class Collected:
    """Takes packets apart: echoes, other machines, and the records of nodes."""

    def __init__(self, own: Iterable[str], number: str) -> None:
        self._own, self._number = frozenset(own), number
        self.doctors = set[str]()
        self._services: dict[str, tuple[str, int, str, str]] = {}
        self._texts: dict[str, Mapping[str, str]] = {}
        self._hosts: dict[str, set[str]] = {}

    def take(self, data: bytes, host: str, at: Listening) -> None:
        """Take one packet; what cannot be read says only that its sender is there."""
        from zeroconf import DNSIncoming  # type: ignore[attr-defined]  # not in its __all__

        if host not in self._own:
            at.others.add(host)
        incoming = DNSIncoming(data)
        if not incoming.valid:
            return
        for asked in incoming.questions:
            if asked.name == f"{self._number}.{DOCTOR}":
                at.echoed = True
            elif asked.name.endswith(DOCTOR) and host not in self._own:
                self.doctors.add(host)
        for record in incoming.answers():
            self._record(record, host, at)

    def _record(self, record: object, host: str, at: Listening) -> None:
        from zeroconf import DNSAddress, DNSService, DNSText  # type: ignore[attr-defined]  # not in its __all__

        match record:
            case DNSService() if record.name.endswith(SERVICE):
                found = (record.server.lower(), record.port, host, at.place.name)
                self._services.setdefault(record.name, found)
            case DNSText() if record.name.endswith(SERVICE):
                self._texts[record.name] = dict(properties(record.text))
            case DNSAddress():
                address = str(ipaddress.ip_address(record.address))
                self._hosts.setdefault(record.name.lower(), set()).add(address)
            case _:
                pass

    def nodes(self) -> Iterator[Announced]:
        """Yield the nodes that were announced, in the order of their names."""
        for name, (server, port, host, interface) in sorted(self._services.items()):
            told = self._texts.get(name, {})
            yield Announced(
                name=told.get("name", name.removesuffix(f".{SERVICE}")),
                id=told.get("id", ""),
                protocol=told.get("protocol", ""),
                port=port,
                addresses=tuple(sorted(self._hosts.get(server, ()))),
                heard_from=host,
                interface=interface,
            )


def properties(text: bytes) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a TXT record. Pure."""
    while text:
        length, text = text[0], text[1:]
        key, _, value = text[:length].decode(errors="replace").partition("=")
        yield key, value
        text = text[length:]
