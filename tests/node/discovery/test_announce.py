from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import asynccontextmanager

import msgspec
from zeroconf import ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo

from edgeserve.mdns import multicast
from edgeserve.wire import PROTOCOL, SERVICE, NodeReport
from node.discovery import announce
from node.discovery.announce import announced, label, service_info
from tests.node.building import a_node
from tests.patience import PATIENCE


def a_report(id_: str | None = None, **changes: object) -> NodeReport:
    report = a_node().report()
    id_ = id_ or secrets.token_hex(16)
    return msgspec.structs.replace(report, id=id_, **changes)


Wanted = Callable[[dict[str, AsyncServiceInfo]], bool]


class Heard:
    """What a browser on this machine's loopback hears, by instance name."""

    def __init__(self) -> None:
        self.now: dict[str, AsyncServiceInfo] = {}
        self._more = asyncio.Event()

    def changed(
        self,
        zeroconf: Zeroconf,
        service_type: str,
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        info = AsyncServiceInfo(service_type, name)
        if state_change is ServiceStateChange.Removed:
            self.now.pop(name, None)
        elif info.load_from_cache(zeroconf):
            self.now[name] = info
        self._more.set()

    async def until(self, wanted: Wanted) -> None:
        async with asyncio.timeout(PATIENCE):
            while not wanted(self.now):
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def listening() -> AsyncGenerator[Heard]:
    async with multicast(loopback_only=True, instead="") as zeroconf:
        assert zeroconf is not None
        heard = Heard()
        browser = AsyncServiceBrowser(
            zeroconf.zeroconf, SERVICE, handlers=[heard.changed]
        )
        try:
            yield heard
        finally:
            await browser.async_cancel()


@asynccontextmanager
async def announcing(
    report: Callable[[], NodeReport],
    at: Callable[[], frozenset[str]] = lambda: frozenset({"127.0.0.1"}),
    news: AsyncIterable[object] | None = None,
) -> AsyncGenerator[announce.Announcement]:
    async with multicast(loopback_only=True, instead="") as zeroconf:
        assert zeroconf is not None
        async with announced(zeroconf, report, at, news) as announcement:
            yield announcement


def name_of(report: NodeReport) -> str:
    return f"{label(report.name, report.id)}.{SERVICE}"


async def test_an_announcement_says_who_where_and_which_protocol() -> None:
    report = a_report()
    async with listening() as heard, announcing(lambda: report):
        await heard.until(lambda now: name_of(report) in now)
        info = heard.now[name_of(report)]

    assert info.port == report.port
    assert info.parsed_addresses() == ["127.0.0.1"]
    assert info.decoded_properties == {
        "id": report.id,
        "instance": "i1",
        "name": "kitchen",
        "port": "8090",
        "protocol": str(PROTOCOL),
    }


async def test_the_end_of_the_block_withdraws_the_announcement() -> None:
    report = a_report()
    async with listening() as heard:
        async with announcing(lambda: report):
            await heard.until(lambda now: name_of(report) in now)

        await heard.until(lambda now: name_of(report) not in now)


async def test_equal_host_names_differ_by_their_ids() -> None:
    one, two = a_report(), a_report()
    async with (
        listening() as heard,
        announcing(lambda: one),
        announcing(lambda: two),
    ):
        await heard.until(lambda now: {name_of(one), name_of(two)} <= set(now))


async def test_a_changed_address_is_announced_under_the_same_name() -> None:
    now = ["10.0.0.5"]
    moved = asyncio.Event()

    async def news() -> AsyncGenerator[None]:
        await moved.wait()
        yield

    report = a_report()
    async with (
        listening() as heard,
        announcing(lambda: report, lambda: frozenset(now), news()),
    ):
        await heard.until(lambda infos: name_of(report) in infos)
        now[0] = "10.0.0.6"
        moved.set()

        await heard.until(
            lambda infos: "10.0.0.6" in infos[name_of(report)].parsed_addresses()
        )


async def test_a_new_id_is_announced_and_the_old_one_is_not_withdrawn() -> None:
    before, after = a_report(), a_report()
    current = [before]
    async with (
        listening() as heard,
        announcing(lambda: current[0]) as announcement,
    ):
        await heard.until(lambda now: name_of(before) in now)
        current[0] = after
        await announcement.announce()
        await heard.until(lambda now: name_of(after) in now)

        assert name_of(before) in heard.now


def test_a_name_of_any_length_and_script_fits_its_label() -> None:
    for name in ("pi.lan", "ü" * 80, "a\nb", "", "厨房" * 40):
        made = label(name, "0123456789abcdef")

        assert len(made.encode()) <= 63
        assert made.endswith(" 01234567")
        assert "." not in made
        assert made.isprintable()


def test_ipv6_addresses_are_announced_without_our_scope() -> None:
    info = service_info(a_report(), {"fe80::1%eth0", "192.168.1.5"})

    assert sorted(info.parsed_addresses()) == ["192.168.1.5", "fe80::1"]


def test_a_long_name_leaves_room_in_the_record() -> None:
    info = service_info(a_report(name="ü" * 300), {"192.168.1.5"})

    assert len(info.decoded_properties["name"] or "") == 100
