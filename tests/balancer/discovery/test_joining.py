"""A balancer meets machines that ask to join, and gives one the token if approved."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack

import pytest

from balancer.discovery import joining
from balancer.discovery.joining import JoinRefused, JoinRequests
from edgeserve.errors import CommandError, FleetBusy
from edgeserve.security.certificates import new_certificate
from tests.balancer.discovery.joiners import (
    HERE,
    Joiner,
    a_balancer,
    a_joiner,
    in_the_middle,
)
from tests.fakes.tokens import TOKEN
from tests.patience import PATIENCE


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "PAUSE_SECONDS", 0.0)


async def until_none_waits(requests: JoinRequests) -> None:
    async with asyncio.timeout(PATIENCE):
        while requests.waiting:
            await asyncio.sleep(0.005)


async def test_after_approval_the_machine_has_the_token() -> None:
    async with a_balancer() as requests, a_joiner() as joiner:
        await requests.ask(HERE, joiner.request())
        (asking,) = requests.waiting
        assert await joiner.code() == asking.code
        assert not joiner.result.done()

        await requests.approve(asking, asking.code)

        assert await joiner.token() == TOKEN
        await until_none_waits(requests)


async def test_a_machine_that_is_denied_gets_nothing() -> None:
    async with a_balancer() as requests, a_joiner() as joiner:
        await requests.ask(HERE, joiner.request())
        requests.deny(*requests.waiting)

        with pytest.raises(CommandError, match="denied"):
            await joiner.token()
        await until_none_waits(requests)


async def test_another_code_than_the_one_that_was_compared_approves_nothing() -> None:
    async with a_balancer() as requests, a_joiner() as joiner:
        await requests.ask(HERE, joiner.request())
        (asking,) = requests.waiting
        other = "000-000" if asking.code != "000-000" else "000-001"

        with pytest.raises(JoinRefused, match="compare again"):
            await requests.approve(asking, other)
        assert not joiner.result.done()


async def test_a_machine_in_the_middle_shows_in_the_codes() -> None:
    async with (
        a_balancer() as requests,
        a_joiner() as joiner,
        in_the_middle(joiner.port) as (middle, port),
    ):
        with pytest.raises(JoinRefused, match="does not keep to the exchange"):
            await requests.ask(HERE, joiner.request(port=port))
        await requests.ask(HERE, joiner.request(port=port, id=middle.id))

        (asking,) = requests.waiting
        assert asking.code != await joiner.code()


async def test_a_machine_with_another_certificate_is_not_met() -> None:
    other = new_certificate("other").id
    async with a_balancer() as requests, a_joiner() as joiner:
        with pytest.raises(JoinRefused):
            await requests.ask(HERE, joiner.request(id=other))

        assert not joiner.exchange.begun


async def test_a_stranger_does_not_use_up_the_exchange() -> None:
    async with a_balancer() as requests, a_joiner() as joiner:
        with pytest.raises(JoinRefused):
            await requests.ask(HERE, joiner.request(knock="00" * 16))
        await requests.ask(HERE, joiner.request())

        assert len(requests.waiting) == 1


@pytest.mark.parametrize(
    ("allowed", "fleet", "why"),
    [(False, True, "start it with --approve"), (True, False, "token new")],
)
async def test_where_no_machine_can_join_a_sentence_says_why(
    allowed: bool, fleet: bool, why: str
) -> None:
    async with (
        a_balancer(allowed=allowed, fleet=fleet) as requests,
        a_joiner() as joiner,
    ):
        with pytest.raises(JoinRefused, match=re.escape(why)):
            await requests.ask(HERE, joiner.request())


async def test_a_revoked_machine_cannot_ask() -> None:
    async with (
        a_joiner() as joiner,
        a_balancer(revoked=[joiner.certificate.id]) as requests,
    ):
        with pytest.raises(JoinRefused, match="nodes allow"):
            await requests.ask(HERE, joiner.request())


async def test_a_port_that_nothing_listens_on_is_named() -> None:
    async with a_balancer() as requests:
        async with a_joiner() as joiner:
            request = joiner.request()
        with pytest.raises(JoinRefused, match=f"cannot connect to .*:{request.port}"):
            await requests.ask(HERE, request)


async def test_a_machine_that_leaves_waits_no_longer() -> None:
    async with a_balancer() as requests, a_joiner() as joiner:
        await requests.ask(HERE, joiner.request())
        (asking,) = requests.waiting
        asking.writer.transport.abort()
        await until_none_waits(requests)

        with pytest.raises(JoinRefused, match="left before"):
            await requests.approve(asking, asking.code)


async def test_the_end_of_the_balancer_is_said() -> None:
    async with a_joiner() as joiner:
        async with a_balancer() as requests:
            await requests.ask(HERE, joiner.request())

        with pytest.raises(CommandError, match="the balancer ended"):
            await joiner.token()


async def test_a_machine_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(joining, "WAIT_SECONDS", 0.05)
    async with a_balancer() as requests, a_joiner() as joiner:
        await requests.ask(HERE, joiner.request())

        with pytest.raises(CommandError, match="not approved in time"):
            await joiner.token()


async def test_one_machine_of_an_address_waits() -> None:
    async with a_balancer() as requests, a_joiner() as first, a_joiner() as second:
        await requests.ask(HERE, first.request())
        await requests.ask(HERE, second.request("nuc"))

        assert [each.name for each in requests.waiting] == ["nuc"]
        with pytest.raises(CommandError, match="denied"):
            await first.token()


async def test_an_address_has_to_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "PAUSE_SECONDS", 60.0)
    async with a_balancer() as requests, a_joiner() as joiner:
        await requests.ask(HERE, joiner.request())
        with pytest.raises(FleetBusy, match="a moment ago"):
            await requests.ask(HERE, joiner.request())


async def test_only_so_many_machines_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "MOST", 2)
    async with a_balancer() as requests, AsyncExitStack() as stack:
        joiners: list[Joiner] = [
            await stack.enter_async_context(a_joiner()) for _ in range(3)
        ]
        for number, joiner in enumerate(joiners[:2]):
            await requests.ask(HERE, joiner.request())
            # As if it had come from an address of its own.
            waiting = requests.waiting[number]
            waiting.origin = type(waiting.origin)(f"10.0.0.{number}", 1)

        with pytest.raises(FleetBusy, match="too many"):
            await requests.ask(HERE, joiners[2].request())


async def test_a_name_cannot_steer_a_terminal() -> None:
    async with a_balancer() as requests, a_joiner() as joiner:
        await requests.ask(HERE, joiner.request("\x1b[2Jpi\n"))

        assert requests.waiting[0].name == "?[2Jpi?"
