"""Balancers that share nodes and know nothing of each other get equal shares."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from tests.endpoint.sharing.shared import sharing
from tests.fakes.llama import Behaviour

LONG = "PROXIES" in os.environ
SECONDS = 20.0 if LONG else 4.0
WITHIN = 0.05 if LONG else 0.2
"""Of all slots; so two shares differ by at most twice that."""

long = pytest.mark.skipif(not LONG, reason="20 s each: make check-proxies")


def nodes(slots: int, *rates: float) -> list[Behaviour]:
    return [Behaviour(slots=slots, decode=rate, length=20) for rate in rates]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("behaviours", "clients"),
    [
        pytest.param(nodes(2, 100, 100), (8, 8), id="equal loads"),
        pytest.param(nodes(2, 100, 100), (24, 6), marks=long, id="unequal loads"),
        pytest.param(nodes(2, 200, 40), (8, 8), marks=long, id="unequal nodes"),
        pytest.param(nodes(3, 100), (8, 8), marks=long, id="an odd slot"),
        pytest.param(nodes(1, 100), (4, 4), marks=long, id="one slot"),
        pytest.param(nodes(2, 100, 100), (8, 8, 8), marks=long, id="three"),
    ],
)
async def test_each_balancer_has_its_share_although_one_came_first(
    behaviours: Sequence[Behaviour], clients: Sequence[int]
) -> None:
    async with sharing(*behaviours, balancers=len(clients)) as fleet:
        shares = await fleet.shares(clients, SECONDS, late=1.0)

    print(*shares, sep="\n")
    assert not any(each.refused for each in shares)
    for each in shares:
        assert abs(each.slots - 1 / len(clients)) < WITHIN, shares


async def test_a_balancer_that_asks_little_gets_all_of_it() -> None:
    clients = 20
    async with sharing(*nodes(4, 100), balancers=2) as fleet:
        much, little = await fleet.shares((clients, 1), SECONDS, late=1.0)

    # Without turns its client would get as many answers as each of the others.
    assert little.answers > 2 * much.answers / clients, (much, little)
    assert much.slots > 0.7


async def test_a_balancer_alone_uses_every_slot() -> None:
    async with sharing(*nodes(2, 100, 100), balancers=2) as fleet:
        first, second = await fleet.shares((0, 8), 2.0)

    assert (first.slots, second.slots) == (0, 1)
