"""A request at which two engines have died is not tried on a third."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from balancer.health.poison import MOST, SECONDS, Death, Poison, state_of
from edgeserve.errors import NodeLost
from edgeserve.http.types import Request, Response
from edgeserve.wire import Ended
from tests.balancer.building import a_candidate
from tests.balancer.endpoint import CHAT, Answered, Endpoint, chat, endpoint, eventually
from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node
from tests.fakes.reports import an_engine
from tests.patience import PATIENCE

EVIL = "opens the abyss"


def ended(
    epoch: int = 1, state: Any = "failed", how: Ended = "died", **node: Any
) -> Any:
    engine = msgspec.structs.replace(an_engine(), epoch=epoch, state=state, ended=how)
    return a_candidate(engine=engine, **node)


LIFE = a_candidate(engine=msgspec.structs.replace(an_engine(), epoch=1)).incarnation


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (ended(state="ready", how=""), "alive"),
        (ended(), "died"),
        (ended(how="killed"), "killed"),
        (ended(state="stuck"), "died"),
        (ended(2, "loading"), "died"),
        (ended(2, "ready", "killed"), "killed"),
        (ended(2, "failed"), "unknown"),
        (ended(3, "ready"), "unknown"),
        (ended(how=""), "unknown"),
        (ended(instance="another"), "unknown"),
        (ended(node_id="b"), "unknown"),
    ],
)
def test_what_became_of_an_engine_is_what_its_node_says(now: Any, state: str) -> None:
    assert state_of(LIFE, [now]) == state


def two_deaths(*, hung: bool = False) -> tuple[Poison, list[Any]]:
    poison, there = Poison(), [ended(), ended(node_id="b")]
    for each in there:
        poison.note(b"x", Death(each.incarnation, hung=hung))
        poison.note(b"x", Death(each.incarnation, hung=hung))
    return poison, there


def test_two_deaths_are_proof_and_one_reported_twice_is_none() -> None:
    poison, there = two_deaths()

    assert not poison.proved(b"x", there[:1], 0)
    assert not poison.refuses(b"x", 0)
    assert poison.proved(b"x", there, 0)
    assert poison.refuses(b"x", SECONDS - 1)
    assert not poison.refuses(b"x", SECONDS)
    assert poison.empty


def test_engines_that_others_kill_prove_nothing() -> None:
    poison, there = two_deaths()

    killed = [replace(each, engine=ended(how="killed").engine) for each in there]
    assert not poison.proved(b"x", killed, 0)


def test_two_engines_that_hang_at_it_are_proof_too() -> None:
    poison, there = two_deaths(hung=True)

    well = [replace(each, engine=ended(state="ready", how="").engine) for each in there]
    assert poison.proved(b"x", well, 0)


def test_what_was_answered_since_is_innocent() -> None:
    poison, there = two_deaths()
    poison.forget(b"x")

    assert not poison.proved(b"x", there, 0)


def test_memory_is_bounded() -> None:
    poison = Poison()
    for number in range(MOST + 10):
        poison.note(b"%d" % number, Death(LIFE))

    assert len(poison.deaths) == MOST
    assert b"0" not in poison.deaths


class Mortal:
    """A node whose engine dies of evil requests, as soon as it reads one.

    Everybody else's that is there dies with it. It is started again.
    """

    def __init__(self, node: FakeNode, how: Ended = "died") -> None:
        self.node = node
        self.how: Ended = how
        self.deaths = 0
        self._passed = node._passed
        node._passed = self.passed  # type: ignore[method-assign]  # to die
        self._here = set[asyncio.Task[Any]]()

    async def passed(self, request: Request, reply: Response) -> None:
        task = asyncio.current_task()
        assert task is not None
        if EVIL.encode() in request.body:
            self._die()
            raise NodeLost("the engine hung up")
        self._here.add(task)
        try:
            await self._passed(request, reply)
        except asyncio.CancelledError:
            if task.uncancel() == 0:
                raise NodeLost("the engine hung up") from None
            raise
        finally:
            self._here.discard(task)

    def _die(self) -> None:
        self.deaths += 1
        epoch = self.node.engine.epoch
        for task in self._here:
            task.cancel()
        self.node.say(state="failed", reason="it crashed", ended=self.how)
        self.node.say(state="ready", reason=None, epoch=epoch + 1)


@asynccontextmanager
async def mortals(
    *names: str, how: Ended = "died", **settings: Any
) -> AsyncGenerator[tuple[Endpoint, list[Mortal]]]:
    """Run such nodes, of which the first are preferred."""
    async with _nodes(*names) as nodes:
        made = [Mortal(node, how) for node in nodes]
        async with endpoint(*nodes, **settings) as balancer:
            yield balancer, made


@asynccontextmanager
async def _nodes(*names: str) -> AsyncGenerator[list[FakeNode]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(fake_node(name, Behaviour(slots=3)))
            for name in names
        ]


async def evil(balancer: Endpoint, **fields: Any) -> Answered:
    async with asyncio.timeout(PATIENCE):
        return await balancer.post(CHAT, chat(EVIL, **fields))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_that_ends_two_engines_is_refused(stream: bool) -> None:
    async with mortals("a", "b", "c") as (balancer, nodes):
        answer = await evil(balancer, stream=stream)
        died = [each.deaths for each in nodes]
        again = await evil(balancer, stream=stream)
        other = await balancer.post(CHAT, chat())
        after = [each.deaths for each in nodes]

    assert (answer.status, again.status, other.status) == (422, 422, 200)
    assert answer.json["error"]["code"] == "request_ends_engines"
    assert "two engines ended" in answer.error
    assert sum(died) == sum(after) == 2


async def test_also_where_there_is_but_one_that_is_started_again() -> None:
    async with mortals("a") as (balancer, [node]):
        answer = await evil(balancer)

    assert (answer.status, node.deaths) == (422, 2)


async def test_a_request_that_is_sent_again_is_recognized() -> None:
    async with mortals("a", attempts=1) as (balancer, [node]):
        first = await evil(balancer)
        second = await evil(balancer)
        third = await evil(balancer)

    assert (first.status, second.status, third.status) == (502, 422, 422)
    assert node.deaths == 2


async def test_engines_killed_from_outside_are_not_counted_against_it() -> None:
    async with mortals("a", "b", "c", how="killed") as (balancer, nodes):
        answer = await evil(balancer)

    assert answer.status == 502
    assert sum(each.deaths for each in nodes) == 3


async def test_its_neighbours_are_answered() -> None:
    async with mortals("a", "b", "c") as (balancer, nodes):
        for each in nodes:
            each.node.llama.freeze()
        asked = [
            asyncio.create_task(balancer.post(CHAT, chat(f"number {n}")))
            for n in range(5)
        ]
        await eventually(lambda: sum(len(each.node.told) for each in nodes) >= 5)
        asking = asyncio.create_task(evil(balancer))
        await eventually(lambda: sum(each.deaths for each in nodes) >= 1)
        for each in nodes:
            each.node.llama.thaw()
        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(*asked)
            guilty = await asking
        died = sum(each.deaths for each in nodes)

    assert guilty.status == 422
    assert died == 2
    assert {each.status for each in answers} == {200}
