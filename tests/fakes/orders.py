"""What a fake node does when it is told to load or unload an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from aiohttp import web

from edgeserve.desired import DESIRE, LOAD, UNLOAD, DesiredModel
from edgeserve.errors import EdgeserveError
from edgeserve.http.server.aiohttp_routes import as_response, json_response
from edgeserve.wire import EngineState, NodeReport


class Reporting(Protocol):
    """A fake node, as far as orders are concerned."""

    report: NodeReport

    def say(self, report: NodeReport | None = None, **engine: Any) -> None:
        """Send a full report."""


@dataclass
class Orders:
    """The orders that a fake node got, with the last parts of their paths.

    Engines then are `loading` or `leaving`, until a test says more. `refusal` is
    raised instead, as long as it is set.
    """

    got: list[tuple[str, dict[str, Any]]] = field(
        default_factory=list[tuple[str, dict[str, Any]]]
    )
    refusal: EdgeserveError | None = None

    def routes(self, node: Callable[[], Reporting]) -> list[web.RouteDef]:
        """Return the routes of orders."""

        async def obey(request: web.Request) -> web.Response:
            body = await request.json()
            self.got.append((request.path.rpartition("/")[2], body))
            if self.refusal:
                return as_response(self.refusal, request.path)
            if request.path == DESIRE:
                return _desire(node(), body)
            state: EngineState = "loading" if request.path == LOAD else "leaving"
            return _become(node(), body["engine"], state)

        return [web.post(path, obey) for path in (LOAD, UNLOAD, DESIRE)]


def _become(node: Reporting, id_: str, state: EngineState) -> web.Response:
    engines = tuple(
        msgspec.structs.replace(each, state=state) if each.id == id_ else each
        for each in node.report.engines
    )
    node.say(msgspec.structs.replace(node.report, engines=engines))
    (told,) = (each for each in engines if each.id == id_)
    return json_response(told, status=202)


def _desire(node: Reporting, body: dict[str, Any]) -> web.Response:
    model = msgspec.convert(body, DesiredModel)
    others = [each for each in node.report.desired if each.model != model.model]
    desired = (*others, *(() if model.usual else (model,)))
    node.say(msgspec.structs.replace(node.report, desired=desired))
    return json_response(desired)
