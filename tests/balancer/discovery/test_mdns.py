from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from balancer.discovery import mdns
from balancer.discovery.hints import Discovered, Withdrawn
from balancer.discovery.sources import discovering
from edgeserve.config.settings import BalancerSettings
from edgeserve.http import Origin
from edgeserve.mdns import multicast
from edgeserve.wire import SERVICE
from tests.patience import PATIENCE

Event = Discovered | Withdrawn


class Seen:
    """What was seen of one node; others may be running on this machine."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.events: list[Event] = []
        self._more = asyncio.Event()

    def __call__(self, event: Event) -> None:
        if event.key == self.key:
            self.events.append(event)
            self._more.set()

    async def until(self, wanted: Callable[[Event], bool]) -> Event:
        async with asyncio.timeout(PATIENCE):
            while not any(map(wanted, self.events)):
                self._more.clear()
                await self._more.wait()
        return next(event for event in self.events if wanted(event))


@asynccontextmanager
async def announcer() -> AsyncGenerator[AsyncZeroconf]:
    async with multicast(loopback_only=True, instead="") as zeroconf:
        assert zeroconf is not None
        yield zeroconf


@asynccontextmanager
async def browsing(seen: Seen) -> AsyncGenerator[None]:
    async with discovering(BalancerSettings(), seen, loopback_only=True):
        yield


def an_announcement(
    id_: str, port: int = 1234, at: str = "127.0.0.1", **more: str
) -> AsyncServiceInfo:
    return AsyncServiceInfo(
        SERVICE,
        f"node {id_[:8]}.{SERVICE}",
        port=port,
        server=f"edgeserve-{id_[:12]}.local.",
        parsed_addresses=[at],
        properties={"id": id_, **more},
    )


@pytest.fixture
def id_() -> str:
    return secrets.token_hex(16)


def is_discovered(event: Event) -> bool:
    return isinstance(event, Discovered)


async def test_a_listed_node_is_seen_at_once() -> None:
    settings = BalancerSettings(
        nodes=("http://10.0.0.5:9000", "http://[fd00::5]"), discover=False
    )
    seen: list[Event] = []
    async with discovering(settings, seen.append, loopback_only=True):
        pass

    assert seen == [
        Discovered("http://10.0.0.5:9000", (Origin("10.0.0.5", 9000),), None, "static"),
        Discovered("http://[fd00::5]", (Origin("fd00::5", 8090),), None, "static"),
    ]


async def test_a_node_that_announces_itself_is_seen_with_its_id(id_: str) -> None:
    info = an_announcement(id_)
    seen = Seen(info.name)
    async with browsing(seen), announcer() as zeroconf:
        _ = await zeroconf.async_register_service(info, cooperating_responders=True)

        event = await seen.until(is_discovered)

    origins = (Origin("127.0.0.1", 1234),)
    assert event == Discovered(info.name, origins, id_, "mdns")


async def test_a_node_that_was_there_before_is_found_too(id_: str) -> None:
    info = an_announcement(id_)
    seen = Seen(info.name)
    async with announcer() as zeroconf:
        await (await zeroconf.async_register_service(info, cooperating_responders=True))
        async with browsing(seen):
            await seen.until(is_discovered)


async def test_a_withdrawal_is_reported(id_: str) -> None:
    info = an_announcement(id_)
    seen = Seen(info.name)
    async with browsing(seen):
        async with announcer() as zeroconf:
            _ = await zeroconf.async_register_service(info, cooperating_responders=True)
            await seen.until(is_discovered)

        await seen.until(lambda event: event == Withdrawn(info.name))


async def test_a_restarted_node_is_seen_anew_though_nothing_else_changed(
    id_: str,
) -> None:
    first = an_announcement(id_, instance="1")
    seen = Seen(first.name)
    async with browsing(seen), announcer() as zeroconf:
        _ = await zeroconf.async_register_service(first, cooperating_responders=True)
        await seen.until(is_discovered)
        seen.events.clear()
        again = an_announcement(id_, instance="2")
        _ = await zeroconf.async_update_service(again)

        await seen.until(is_discovered)


async def test_a_new_address_is_seen_and_the_old_one_goes(
    id_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mdns, "LINGER_SECONDS", 1.2)
    seen = Seen(an_announcement(id_).name)
    async with browsing(seen), announcer() as zeroconf:
        before = an_announcement(id_, at="10.0.0.5")
        _ = await zeroconf.async_register_service(before, cooperating_responders=True)
        await seen.until(is_discovered)
        await asyncio.sleep(1.1)  # RFC 6762 spares records younger than a second
        _ = await zeroconf.async_update_service(an_announcement(id_, at="10.0.0.6"))

        origins = (Origin("10.0.0.6", 1234),)
        await seen.until(lambda e: isinstance(e, Discovered) and e.origins == origins)


async def test_an_announcement_without_an_id_is_discovered_all_the_same(
    id_: str,
) -> None:
    info = an_announcement(id_)
    bare = AsyncServiceInfo(
        SERVICE, info.name, port=1, server=info.server, parsed_addresses=["10.0.0.5"]
    )
    seen = Seen(info.name)
    async with browsing(seen), announcer() as zeroconf:
        _ = await zeroconf.async_register_service(bare, cooperating_responders=True)
        event = await seen.until(is_discovered)

    assert isinstance(event, Discovered)
    assert event.id is None


async def test_no_task_outlives_the_block(id_: str) -> None:
    before = asyncio.all_tasks()
    info = an_announcement(id_)
    seen = Seen(info.name)
    async with announcer() as zeroconf:
        announcing = await zeroconf.async_register_service(
            info, cooperating_responders=True
        )
        async with browsing(seen):
            await seen.until(is_discovered)
        await announcing

    assert asyncio.all_tasks() == before


async def test_where_multicast_is_impossible_listed_nodes_remain(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("edgeserve.mdns.AsyncZeroconf", refuse)
    seen: list[Event] = []
    settings = BalancerSettings(nodes=("http://10.0.0.5:9000",))
    async with discovering(settings, seen.append, loopback_only=True):
        pass

    assert len(seen) == 1
    assert "--node URL" in caplog.text
