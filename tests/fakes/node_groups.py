"""How a fake node is the head of groups, and measures links."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from edgeserve.orders.groups import (
    DISSOLVE,
    FORM,
    LINK,
    DissolveGroup,
    FormGroup,
    GroupMember,
    MeasureLink,
    NodeLink,
    WorkerReport,
    group_id,
)
from edgeserve.wire import EngineReport, Expected, encode
from tests.fakes.node_loads import refusal
from tests.fakes.reports import an_engine

if TYPE_CHECKING:
    from tests.fakes.node import FakeNode

GOOD = NodeLink(round_trip=0.0005, bytes_per_second=1e8)


@dataclass
class FakeGroups:
    """The groups of a fake node. `links` are by worker; None cannot be reached.

    `refuses` is a sentence with which it forms none, with the error's `code`; `fails`
    why groups do not load.
    A group takes all that the nodes `filled` could give. A link is measured while
    `measures` is set. `formed`, `dissolved` and `measured` are the orders that came.
    """

    node: FakeNode
    links: dict[str, NodeLink | None] = field(
        default_factory=dict[str, NodeLink | None]
    )
    refuses: str = ""
    code: str = "no_worker"
    fails: str = ""
    filled: tuple[FakeNode, ...] = ()
    formed: list[FormGroup] = field(default_factory=list[FormGroup])
    dissolved: list[DissolveGroup] = field(default_factory=list[DissolveGroup])
    measured: list[MeasureLink] = field(default_factory=list[MeasureLink])
    measures: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.measures.set()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the orders."""
        return [
            web.post(FORM, self.form),
            web.post(DISSOLVE, self.dissolve),
            web.post(LINK, self.link),
        ]

    async def form(self, request: web.Request) -> web.Response:
        """Take an order to form a group; it is ready at once, or fails."""
        order = msgspec.json.decode(await request.read(), type=FormGroup)
        self.formed.append(order)
        if self.refuses:
            return refusal(409, self.code, self.refuses)
        loading = self._engine(order)
        self._put(loading)
        ending = {"state": "failed", "reason": self.fails} if self.fails else {}
        fields = {"state": "ready", "epoch": len(self.formed), **ending}
        loop = asyncio.get_running_loop()
        loop.call_later(0.1, lambda: self.node.change(loading.id, **fields))
        return web.Response(body=encode(loading), status=202)

    async def dissolve(self, request: web.Request) -> web.Response:
        """Take an order to dissolve a group."""
        order = msgspec.json.decode(await request.read(), type=DissolveGroup)
        self.dissolved.append(order)
        self.end(order.variant)
        return web.Response(status=204)

    async def link(self, request: web.Request) -> web.Response:
        """Measure a link."""
        order = msgspec.json.decode(await request.read(), type=MeasureLink)
        self.measured.append(order)
        await self.measures.wait()
        link = self.links.get(order.node, GOOD)
        if link is None:
            return refusal(502, "node_lost", f"{order.node} does not answer")
        return web.Response(body=encode(link))

    def lose(self, variant: str, worker: str) -> None:
        """Lose a worker: the group is down, and its head would start it anew."""
        engine = self.node.find(group_id(variant))
        assert engine is not None
        members = tuple(
            msgspec.structs.replace(m, state="lost") if m.node == worker else m
            for m in engine.group
        )
        why = f"{worker} was lost"
        self.node.change(engine.id, state="failed", reason=why, group=members)

    def again(self, variant: str) -> None:
        """Have a group back that was lost."""
        engine = self.node.find(group_id(variant))
        assert engine is not None
        members = (msgspec.structs.replace(m, state="up") for m in engine.group)
        self.node.change(engine.id, state="ready", reason=None, group=tuple(members))

    def end(self, variant: str) -> None:
        """Have a group no longer."""
        gone = group_id(variant)
        left = tuple(e for e in self.node.report.engines if e.id != gone)
        self._say(left)
        for each in self.filled:
            for given in each.report.workers:
                self._give(each, given.memory)

    def _engine(self, order: FormGroup) -> EngineReport:
        me = self.node.report
        head = GroupMember(node=me.id, name=me.name, share=order.share, head=True)
        workers = tuple(
            GroupMember(node=w.node, name=w.name, share=w.share, state="up")
            for w in order.workers
        )
        return an_engine(
            order.variant,
            id=group_id(order.variant),
            state="loading",
            slots=order.slots,
            context=order.context,
            group=(msgspec.structs.replace(head, state="up"), *workers),
            expected=Expected(read=order.reads, write=order.writes),
            load_seconds=order.load_seconds,
        )

    def _put(self, engine: EngineReport) -> None:
        left = tuple(e for e in self.node.report.engines if e.id != engine.id)
        self._say((*left, engine))
        for each in self.filled:
            capacity = each.report.capacity
            assert capacity is not None
            given = WorkerReport(
                head=self.node.report.id,
                variant=engine.variant,
                memory=capacity.memory,
            )
            self._give(each, 0, (given,))

    def _say(self, engines: tuple[EngineReport, ...]) -> None:
        self.node.say(msgspec.structs.replace(self.node.report, engines=engines))

    def _give(
        self, node: FakeNode, memory: int, workers: tuple[WorkerReport, ...] = ()
    ) -> None:
        assert node.report.capacity is not None
        capacity = msgspec.structs.replace(node.report.capacity, memory=memory)
        report = msgspec.structs.replace(
            node.report, capacity=capacity, workers=workers
        )
        node.say(report)
