"""Inheritance: the known nodes and learned speeds that the next process gets."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from balancer.discovery.mdns import Discovered, OnEvent
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
    seen: list[_Seen]
    learned: msgspec.Raw


def handed_over(state: BalancerState) -> bytes:
    """Encode everything that the next process should know."""
    seen = [
        _Seen(each.key, tuple(o.url for o in each.origins), each.expected, each.source)
        for each in state.current.fleet.addresses.values()
        if each.state == "up" and each.source != "server"
    ]
    speeds = msgspec.Raw(learned(state.predictive))
    return msgspec.json.encode(_HandedOver(seen, speeds))


def take_over(state: BalancerState, body: bytes) -> list[Discovered]:
    """Take over what was learned; return the known nodes. Invalid data is ignored."""
    try:
        inherited = msgspec.json.decode(body, type=_HandedOver)
        restore(state.predictive, bytes(inherited.learned))
    except msgspec.DecodeError as error:
        log.warning("what the other process learned cannot be used: %s", error)
        return []
    return [_discovered(each) for each in inherited.seen]


def _discovered(each: _Seen) -> Discovered:
    origins = tuple(origin_of(url, NodeSettings.port) for url in each.urls)
    match each.source:
        case "mdns" | "registered" as source:
            return Discovered(each.key, origins, each.id, source)
        case _:
            return Discovered(each.key, origins, each.id, "static")


async def follow_known(
    state: BalancerState, seen: list[Discovered], on_event: OnEvent
) -> None:
    """Follow the nodes that the other process knew; wait a moment for them."""
    for each in seen:
        on_event(each)
    keys = {each.key for each in seen}
    try:
        async with asyncio.timeout(KNOW_SECONDS):
            while not _all_up(state, keys):
                await state.current.changed()
    except TimeoutError:
        log.warning("not every node that the other process knew answers")


def _all_up(state: BalancerState, keys: set[str]) -> bool:
    addresses = state.current.fleet.addresses
    return all(addresses[key].state == "up" for key in keys if key in addresses)
