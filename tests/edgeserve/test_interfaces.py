from __future__ import annotations

import asyncio

import pytest

from edgeserve import interfaces
from tests.patience import PATIENCE


def test_loopback_and_the_rest_are_apart() -> None:
    assert "127.0.0.1" in interfaces.addresses(loopback=True)
    assert not interfaces.addresses() & interfaces.addresses(loopback=True)


def test_an_address_knows_its_network() -> None:
    found = {str(each) for each in interfaces.interfaces(loopback=True)}

    assert "127.0.0.1/8" in found


async def test_a_change_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [frozenset({"10.0.0.5"})]
    monkeypatch.setattr(interfaces, "addresses", lambda: now[0])
    news = interfaces.changes(frozenset({"10.0.0.5"}), every=0.001)
    waiting = asyncio.ensure_future(anext(news))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    now[0] = frozenset({"10.0.0.6"})

    async with asyncio.timeout(PATIENCE):
        assert await waiting == {"10.0.0.6"}


async def test_a_change_since_the_last_look_is_noticed_too() -> None:
    async with asyncio.timeout(PATIENCE):
        now = await anext(interfaces.changes(frozenset({"gone"}), every=0.001))

    assert now == interfaces.addresses()
