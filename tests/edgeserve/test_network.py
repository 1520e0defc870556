from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import psutil
import pytest

from edgeserve import network
from edgeserve.runtime import log
from tests.patience import PATIENCE


def test_loopback_and_the_rest_are_apart() -> None:
    assert "127.0.0.1" in network.addresses(loopback=True)
    assert not network.addresses() & network.addresses(loopback=True)


def test_an_address_knows_its_network() -> None:
    found = {str(each) for each in network.interfaces(loopback=True)}

    assert "127.0.0.1/8" in found


async def test_a_change_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [frozenset({"10.0.0.5"})]
    monkeypatch.setattr(network, "addresses", lambda: now[0])
    news = network.changes(frozenset({"10.0.0.5"}), every=0.001)
    waiting = asyncio.ensure_future(anext(news))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    now[0] = frozenset({"10.0.0.6"})

    async with asyncio.timeout(PATIENCE):
        assert await waiting == {"10.0.0.6"}


async def test_a_change_since_the_last_look_is_noticed_too() -> None:
    async with asyncio.timeout(PATIENCE):
        now = await anext(network.changes(frozenset({"gone"}), every=0.001))

    assert now == network.addresses()


@pytest.mark.parametrize("listing", ["net_if_stats", "net_if_addrs"])
async def test_without_descriptors_the_addresses_are_those_seen_last(
    listing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = network.addresses(loopback=True)
    log._logged.clear()

    def no_more() -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(psutil, listing, no_more)

    assert [network.addresses(loopback=True) for _ in range(3)] == [before] * 3
    assert caplog.text.count("cannot list network addresses: Too many") == 1


def test_an_interface_that_vanishes_in_between_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its statistics are asked for after, or before, its addresses were listed."""
    monkeypatch.setattr(psutil, "net_if_stats", dict)

    assert network.interfaces(loopback=True) == frozenset()


@pytest.mark.parametrize("said", ["", "nonsense", "0 1 2\n", "zz 0 0 0 zz lo\n", "\0"])
def test_a_list_of_ipv6_addresses_that_makes_no_sense_does_no_harm(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "if_inet6").write_text(said)
    monkeypatch.setattr(network, "IF_INET6", tmp_path / "if_inet6")

    assert "127.0.0.1" in network.addresses(loopback=True)


def test_an_address_that_makes_no_sense_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = psutil.net_if_addrs()
    odd = known["lo"][0]._replace(netmask="255.0.255.0")
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"lo": [odd, *known["lo"]]})

    assert "127.0.0.1" in network.addresses(loopback=True)
