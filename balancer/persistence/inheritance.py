"""Inheritance: the known nodes and learned speeds that the next process gets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from balancer.discovery.hints import Discovered, OnEvent, Withdrawn
from balancer.persistence.learned import learned, restore
from balancer.state import BalancerState
from edgeserve.config.settings import NodeSettings
from edgeserve.http.types import origin_of

log = logging.getLogger(__name__)

KNOW_SECONDS = 5.0
"""Longest wait for nodes that the old process knew to be up."""


class _Seen(msgspec.Struct):
    key: str
    urls: tuple[str, ...]
    id: str | None
    source: str


class _HandedOver(msgspec.Struct):
    """`servers` are those that are up; the settings and the state folder name them."""

    seen: list[_Seen]
    learned: msgspec.Raw
    servers: list[str] = []


def handed_over(state: BalancerState) -> bytes:
    """Encode everything that the next process should know."""
    up = [e for e in state.current.fleet.addresses.values() if e.state == "up"]
    seen = [
        _Seen(each.key, tuple(o.url for o in each.origins), each.expected, each.source)
        for each in up
        if each.source != "server"
    ]
    servers = [each.key for each in up if each.source == "server"]
    speeds = msgspec.Raw(learned(state.predictive))
    return msgspec.json.encode(_HandedOver(seen, speeds, servers))


@dataclass(frozen=True)
class Inherited:
    """What was up: nodes, which have to be followed, and servers, which are polled."""

    seen: Sequence[Discovered] = ()
    servers: Sequence[str] = ()


def take_over(state: BalancerState, body: bytes) -> Inherited:
    """Take over what was learned; return what was up. Invalid data is ignored."""
    try:
        inherited = msgspec.json.decode(body, type=_HandedOver)
        restore(state.predictive, bytes(inherited.learned))
    except msgspec.DecodeError as error:
        log.warning("what the other process learned cannot be used: %s", error)
        return Inherited()
    return Inherited([_discovered(each) for each in inherited.seen], inherited.servers)


def _discovered(each: _Seen) -> Discovered:
    origins = tuple(origin_of(url, NodeSettings.port) for url in each.urls)
    match each.source:
        case "mdns" | "registered" | "dns" as source:
            return Discovered(each.key, origins, each.id, source)
        case _:
            return Discovered(each.key, origins, each.id, "static")


async def follow_known(
    state: BalancerState, known: Inherited, on_event: OnEvent
) -> None:
    """Follow the nodes that the other process knew; wait a moment for all it knew."""
    for each in known.seen:
        on_event(each)
        if each.source == "dns":  # until a look-up of our own names it again
            on_event(Withdrawn(each.key))
    keys = {*(each.key for each in known.seen), *known.servers}
    try:
        async with asyncio.timeout(KNOW_SECONDS):
            while not _all_up(state, keys):
                await state.current.changed()
    except TimeoutError:
        log.warning("not all that the other process knew answers")


def _all_up(state: BalancerState, keys: set[str]) -> bool:
    addresses = state.current.fleet.addresses
    return all(addresses[key].state == "up" for key in keys if key in addresses)
