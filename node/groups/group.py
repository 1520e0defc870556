"""Group: the workers of an engine that this node is the head of.

They are asked anew for each process of the engine: it cannot go on with another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from edgeserve.errors import EdgeserveError
from edgeserve.http.client.raw import Connecting
from edgeserve.orders.groups import (
    FormGroup,
    GroupMember,
    HostWorker,
    MemberState,
)
from edgeserve.runtime.background import background
from node.engines.base import Command, Engine, EngineSpec
from node.groups.member import Member
from node.groups.split import expanded

START_SECONDS = 180.0
"""A worker may have to wait until engines have left its memory."""

BLAME_SECONDS = 2.0
"""An engine whose worker dies ends at once; the news of it may take longer."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """What the node of the head has for it: its version of RPC, and other nodes."""

    rpc: str
    nodes: Connecting


class MemberLost(EdgeserveError):
    """A worker is not there; the sentence says which, and why."""


class Group:
    """The members of one group. `changed` is called when their states have."""

    def __init__(
        self,
        order: FormGroup,
        members: tuple[GroupMember, ...],
        head: Head,
        changed: Callable[[], None],
    ) -> None:
        self._order, self._head, self._changed = order, head, changed
        self._members = members
        self._told = asyncio.Event()
        self._held: tuple[Member, ...] = ()
        self._lost: Mapping[str, str] = {}

    @property
    def members(self) -> tuple[GroupMember, ...]:
        """All members and their states, the head first."""
        states: dict[str, MemberState] = dict.fromkeys(self._lost, "lost")
        states |= {each.worker.node: each.state for each in self._held}
        return tuple(
            each
            if each.head
            else msgspec.structs.replace(each, state=states.get(each.node, "starting"))
            for each in self._members
        )

    @property
    def endpoints(self) -> str:
        """Where the engine finds its workers, as `--rpc` names them."""
        return ",".join(each.endpoint for each in self._held)

    @property
    def devices(self) -> tuple[int, ...]:
        """How many devices each worker has."""
        return tuple(each.told.devices for each in self._held)

    def named(self, memory: Mapping[str, int]) -> dict[str, int]:
        """Return bytes by device, where llama.cpp names a worker's by its port."""
        names = {each.endpoint: each.worker.name for each in self._held}
        found = dict[str, int]()
        for device, size in memory.items():
            _, _, endpoint = device.rstrip("]").partition("[")
            name = names.get(endpoint, device)
            found[name] = found.get(name, 0) + size
        return found

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Have the workers there for one process of the engine. Raises MemberLost."""
        head = self._members[0]
        order = HostWorker(
            head=head.node,
            name=head.name,
            variant=self._order.variant,
            memory=0,
            rpc=self._head.rpc,
        )
        self._held = tuple(
            Member(
                each,
                msgspec.structs.replace(order, memory=each.memory),
                self._head.nodes,
                self._tell,
            )
            for each in self._order.workers
        )
        async with background() as tasks, AsyncExitStack() as stack:
            stack.callback(self._end)
            for each in self._held:
                each.start(tasks)
            await self._up()
            for each in self._held:
                await stack.enter_async_context(each.listening(tasks))
            yield

    def _end(self) -> None:
        """Forget the members, but not which were lost."""
        self._lost = {e.worker.node: e.lost for e in self._held if e.lost}
        self._held = ()

    async def _up(self) -> None:
        """Wait until all are up. Raises MemberLost."""
        try:
            async with asyncio.timeout(START_SECONDS):
                while any(each.state != "up" for each in self._held):
                    if lost := self.which:
                        raise MemberLost(lost)
                    await self._news()
        except TimeoutError as error:
            late = [e.worker.name for e in self._held if e.state != "up"]
            names = ", ".join(late)
            why = f"{names}: not ready within {START_SECONDS:g} s"
            raise MemberLost(f"the group cannot start: {why}") from error

    @property
    def which(self) -> str:
        """Which workers are lost, and why; "" for none."""
        lost = [each.lost for each in self._held if each.lost]
        return f"the group has lost {'; '.join(lost)}" if lost else ""

    async def _news(self) -> None:
        await self._told.wait()

    def _tell(self) -> None:
        """Wake all that wait; what they have not seen is in the members."""
        told, self._told = self._told, asyncio.Event()
        told.set()
        self._changed()

    def ready(self) -> None:
        """Note that the engine has loaded: from now on nothing else connects."""
        for each in self._held:
            each.loaded = True
            each.shut()

    async def lost(self) -> str:
        """Wait until a worker is lost; returns which, and why."""
        while not (lost := self.which):
            await self._news()
        return lost

    async def leaving(self) -> str:
        """Wait until the node of a worker shuts down; returns which."""
        while not (names := [e.worker.name for e in self._held if e.told.leaving]):
            await self._news()
        return f"{', '.join(names)} shuts down; running requests finish"

    async def blamed(self) -> str:
        """Return which worker was lost when the engine ended, "" for none."""
        with suppress(TimeoutError):
            async with asyncio.timeout(BLAME_SECONDS):
                return await self.lost()
        return ""


@dataclass(frozen=True)
class GroupEngine:
    """A native engine that computes with the workers of a group."""

    inner: Engine
    group: Group

    @property
    def kind(self) -> Literal["native", "bundled", "fake"]:
        """See `Engine.kind`."""
        return self.inner.kind

    @property
    def build(self) -> str:
        """See `Engine.build`."""
        return self.inner.build

    def command(self, spec: EngineSpec, *, port: int, api_key: str) -> Command:
        """See `Engine.command`. `--rpc` comes first: it makes the devices' names."""
        launch = expanded(spec.launch, self.group.devices)
        inner = self.inner.command(
            replace(spec, launch=launch), port=port, api_key=api_key
        )
        program, *arguments = inner.argv
        argv = (program, "--rpc", self.group.endpoints, *arguments)
        return Command(argv, inner.env)


def members_of(order: FormGroup, id_: str, name: str) -> tuple[GroupMember, ...]:
    """Return the members of a group before it starts; its head is this node."""
    head = GroupMember(node=id_, name=name, share=order.share, state="up", head=True)
    workers = (
        GroupMember(node=each.node, name=each.name, share=each.share)
        for each in order.workers
    )
    return (head, *workers)
