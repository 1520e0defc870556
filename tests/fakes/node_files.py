"""How a fake node pulls and removes models when it is told to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from edgeserve.orders.pulls import PULLS, PullOrder, PullReport
from edgeserve.orders.removal import REMOVE, RemovedModel, RemoveModel
from edgeserve.wire import encode

if TYPE_CHECKING:
    from tests.fakes.node import FakeNode


@dataclass
class FakeFiles:
    """The pulls and removals of a fake node, as they were ordered.

    A pull goes as far as `pulls` is told, and no further.
    """

    node: FakeNode
    ordered: list[PullOrder] = field(default_factory=list[PullOrder])
    removed: list[str] = field(default_factory=list[str])

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the orders."""
        return [
            web.post(PULLS, self.pull),
            web.delete(f"{PULLS}/p1", self.forget),
            web.post(REMOVE, self.remove),
        ]

    async def pull(self, request: web.Request) -> web.Response:
        """Take an order to pull."""
        order = msgspec.json.decode(await request.read(), type=PullOrder)
        self.ordered.append(order)
        begun = PullReport(id="p1", source=order.source, state="waiting")
        return web.Response(body=encode(begun), status=202)

    def pulls(self, **fields: Any) -> None:
        """Report how far the latest pull is."""
        pull = PullReport(id="p1", source=self.ordered[-1].source, **fields)
        self.node.say(msgspec.structs.replace(self.node.report, pulls=(pull,)))

    async def forget(self, _: web.Request) -> web.Response:
        """Forget the pull, as after its end."""
        (pull,) = self.node.report.pulls
        self.node.say(msgspec.structs.replace(self.node.report, pulls=()))
        return web.Response(body=encode(pull))

    async def remove(self, request: web.Request) -> web.Response:
        """Take an order to remove a model; it has every model."""
        order = msgspec.json.decode(await request.read(), type=RemoveModel)
        if not order.preview:
            self.removed.append(order.model)
        return web.Response(
            body=encode(RemovedModel(variants=(order.model,), files=()))
        )
