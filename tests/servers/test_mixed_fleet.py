"""A node, Ray Serve and another server as one fleet, each killed in turn under load."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import psutil
import pytest

from edgeserve.config.routes import ModelRoute
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint
from tests.patience import PATIENCE
from tests.servers.programs import (
    MODEL,
    Mlx,
    Node,
    Program,
    RayServe,
    Running,
    TransformersServe,
    Vllm,
    Weights,
    kill,
    needs,
    serving,
)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1500), needs("ray")]

QUESTIONS = ("Say hello.", "Count to ten.", "Name a colour.", "What is rain?")
FIELDS: dict[str, Any] = {"temperature": 0, "max_tokens": 24}
CLIENTS = 5
MOST = 400
"""Requests of one client."""

ALIAS = "assistant"


@dataclass
class Got:
    """One streamed answer: what came, and how it ended."""

    words: str
    model: str
    status: int = 0
    node: str = ""
    text: str = ""
    error: str = ""
    done: bool = False

    def take(self, line: bytes) -> None:
        """Read one line."""
        if not line.startswith(b"data: "):
            return
        if line.strip() == b"data: [DONE]":
            self.done = True
            return
        event = json.loads(line[6:])
        if "error" in event:
            self.error += event["error"]["message"]
        for choice in event.get("choices", ()):
            self.text += choice["delta"].get("content") or ""

    async def ask(self, here: Endpoint) -> Got:
        """Ask, and read to the end, whatever that is."""
        body = chat(self.words, self.model, stream=True, **FIELDS)
        async with here.session.post(CHAT, json=body) as answer:
            self.status = answer.status
            self.node = answer.headers.get("x-edgeserve-node", "")
            if self.status != 200:
                self.error = await answer.text()
                return self
            async for line in answer.content:
                self.take(line)
        return self


@dataclass
class Load:
    """Clients that ask one question after another until `stop` is set."""

    here: Endpoint
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    got: list[Got] = field(default_factory=list[Got])
    running: set[int] = field(default_factory=set[int])

    async def client(self, number: int) -> None:
        """Be one of them."""
        names = cycle((MODEL, ALIAS, MODEL.lower()))
        for words in islice(cycle(QUESTIONS[number % 4 :] + QUESTIONS), MOST):
            if self.stop.is_set():
                return
            answer = Got(words, next(names))
            self.got.append(answer)
            await answer.ask(self.here)

    def __str__(self) -> str:
        fleet = self.here.balancer.state.current.fleet
        members = {key: (at.state, at.problem) for key, at in fleet.addresses.items()}
        return f"{counted(self.got)}, {members}"

    def is_answering(self, node: str) -> bool:
        """Whether a member is in the middle of an answer."""
        return any(
            each.node == node and len(each.text) > 8 and not (each.done or each.error)
            for each in self.got
        )

    def sees(self, member: Running) -> bool:
        """Whether the balancer can ask a member."""
        return any(
            each.node == member.program.name and each.unavailable is None
            for each in self.here.balancer.state.current.candidates
        )

    def has_answered(self, node: str, since: int) -> bool:
        """Whether a member has answered one of the newer requests."""
        return any(each.node == node and each.done for each in self.got[since:])

    @asynccontextmanager
    async def on(self) -> AsyncGenerator[None]:
        """Load the fleet until the block ends."""
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self.client(number))
            try:
                yield
            finally:
                self.stop.set()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(each, marks=needs(each.name))
        for each in (Mlx(), TransformersServe(), Vllm())
    ],
    ids=lambda each: each.name,
)
def fleet(
    request: pytest.FixtureRequest, weights: Weights
) -> Iterator[dict[str, Running]]:
    """The three members, by name."""
    third: Program = request.param
    with ExitStack() as stack:
        yield {
            each.name: stack.enter_context(serving(each, weights))
            for each in (Node(), RayServe(), third)
        }


async def until(true: Callable[[], bool], what: str, load: Load | None = None) -> None:
    """Wait. A failure shows what was answered by then."""
    try:
        async with asyncio.timeout(PATIENCE * 2):
            while not true():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not in time: {what}; {load}")


def counted(got: Iterable[Got]) -> Counter[tuple[str, str]]:
    """Count answers by member and end."""
    return Counter(
        (each.node, "done" if each.done else each.error or "running") for each in got
    )


def replicas(ray: Running) -> list[int]:
    """Return the processes of Ray's replicas that have engines."""
    found = list[int]()
    for each in ray.tree():
        try:
            if "EngineReplica" in each.cmdline()[0]:
                found.append(each.pid)
        except (psutil.Error, IndexError):
            continue
    return found


async def struck(load: Load, member: Running, *, replicas_only: bool) -> None:
    """Kill a member in mid-answer, and wait until it is back and can be asked.

    A slow one is asked when all others are busy, and may get nothing until then.
    """
    name = member.program.name
    await until(lambda: load.is_answering(name), f"{name} answers", load)
    if replicas_only:
        for pid in await asyncio.to_thread(replicas, member):
            kill(pid)
        since = len(load.got)
        await until(lambda: load.has_answered(name, since), f"{name} is back", load)
        return
    await asyncio.to_thread(member.kill)
    await until(lambda: not load.sees(member), f"{name} is missed", load)
    member.start()
    await asyncio.to_thread(member.until_ready)
    await until(lambda: load.sees(member), f"{name} is back", load)


def references(fleet: dict[str, Running]) -> dict[str, set[str]]:
    """Return what each question is answered with by any member itself."""
    for each in fleet.values():
        each.until_ready()
    return {
        words: {each.chat(words, max_tokens=24) for each in fleet.values()}
        for words in QUESTIONS
    }


def wrong(answer: Got, known: set[str]) -> str:
    """Say what is wrong with what a client got, "" where nothing is."""
    if answer.status != 200 or not answer.text:
        return "lost before its first byte"
    if answer.done and not answer.error:
        return "" if answer.text in known else "text lost, doubled or another"
    if not answer.error:
        return "it broke off without a word"
    if answer.done:
        return "it went on after an error"
    begun = any(each.startswith(answer.text) for each in known)
    return "" if begun else "text lost or doubled before the error"


async def test_each_member_is_killed_in_turn_and_no_request_is_lost(
    fleet: dict[str, Running],
) -> None:
    known = await asyncio.to_thread(references, fleet)
    route = ModelRoute(name=ALIAS, models=(MODEL.lower(),))
    servers = tuple(
        each.setting(name=name, width=2 if name == "ray" else 1)
        for name, each in fleet.items()
        if name != "node"
    )
    async with endpoint(
        fleet["node"].url,
        server_tables=servers,
        routes=(route,),
        owner_first=False,  # the others' work is not that of the node's owner
        wait=False,
    ) as here:
        state = here.balancer.state
        await until(lambda: len(state.current.candidates) == 3, "three engines")
        load = Load(here)
        async with load.on():
            await struck(load, fleet["ray"], replicas_only=True)
            for member in fleet.values():
                await struck(load, member, replicas_only=False)

    print(counted(load.got))
    failed = [
        (each, why) for each in load.got if (why := wrong(each, known[each.words]))
    ]
    assert failed == []
    assert {each.node for each in load.got} >= set(fleet)
