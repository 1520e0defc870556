from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import msgspec

from edgeserve.config.settings import NodeSettings
from edgeserve.http import Origin, bind, listen, upstream
from edgeserve.openai import ROUTES
from edgeserve.security.tokens import Guard
from node.api.admin import routes
from node.api.inference import InferenceHandler
from node.discovery.announce import be_discoverable
from node.discovery.client import FleetClient
from node.discovery.duplicates import gives_way, is_duplicate
from node.kept_log import KeptLog
from node.state import NodeState
from tests.fakes.tokens import GivenTokens
from tests.node.building import SomeId, a_node
from tests.patience import PATIENCE


@dataclass
class Renewing(SomeId):
    """Takes ids that no test has in advance."""

    id: str
    renewals: int = 0

    def renew(self) -> None:
        self.id = secrets.token_hex(16)
        self.renewals += 1


@asynccontextmanager
async def living(name: str, instance: str, id_: str) -> AsyncGenerator[NodeState]:
    """Run a node without engines that listens and is announced on loopback."""
    state = a_node()
    state.name, state.instance, state.identity = name, instance, Renewing(id_)
    guard = Guard([], "")
    async with AsyncExitStack() as stack:
        ask = await stack.enter_async_context(upstream(connect_seconds=30))
        sock = bind("127.0.0.1", 0)
        state.port = await stack.enter_async_context(
            listen(
                sock,
                InferenceHandler(state, ask, guard),
                ROUTES.__contains__,
                routes(state, guard, KeptLog("process")),
                body_limit=1024,
            )
        )
        origin = Origin("127.0.0.1", state.port)
        client = FleetClient(balancers=ask, nodes=ask, tokens=GivenTokens())
        await stack.enter_async_context(
            be_discoverable(state, NodeSettings(), origin, client)
        )
        yield state


async def until_different(one: NodeState, other: NodeState) -> None:
    async with asyncio.timeout(PATIENCE):
        while one.identity.id == other.identity.id:
            await asyncio.sleep(0.01)


async def test_a_clone_with_another_name_takes_a_new_id() -> None:
    id_ = secrets.token_hex(16)
    async with living("old", "1", id_) as old, living("clone", "2", id_) as clone:
        await until_different(old, clone)

        assert old.identity.id == id_


async def test_a_clone_with_the_same_name_takes_a_new_id() -> None:
    id_ = secrets.token_hex(16)
    async with living("pi", "2", id_) as old, living("pi", "1", id_) as clone:
        await until_different(old, clone)

        assert clone.identity.id == id_


async def test_a_restarted_node_is_not_its_own_duplicate() -> None:
    id_ = secrets.token_hex(16)
    async with living("watcher", "1", secrets.token_hex(16)):
        async with living("pi", "1", id_):
            pass
        async with living("pi", "2", id_) as again:
            await asyncio.sleep(1.0)  # a new id would come within this

            assert again.identity.id == id_


def test_of_two_duplicates_exactly_one_gives_way() -> None:
    one = a_node().report()
    other = msgspec.structs.replace(one, instance="i2")

    assert is_duplicate(one, other)
    assert gives_way(one, other) != gives_way(other, one)
    assert not is_duplicate(one, one)
