"""Route of removal: remove the files of a model that no engine has."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from aiohttp import web

from edgeserve.errors import EdgeserveError
from edgeserve.http.server.aiohttp_routes import guarded, json_response
from edgeserve.orders.removal import REMOVE, RemoveModel
from edgeserve.runtime.tasks import in_thread
from edgeserve.security.tokens import Guard
from edgeserve.wire import EngineReport, decode
from node.caches.store import StateStore
from node.models.removal import Removal, removal, remove
from node.state import NodeState

log = logging.getLogger(__name__)

WITHOUT_FILES = frozenset(("absent", "quarantined"))
"""States of engines that have no process, and start none."""


class ModelInUse(EdgeserveError):
    """An engine of the model runs, or is about to."""

    status = 409
    code = "model_in_use"


def removal_routes(
    state: NodeState, folder: Path, guard: Guard, states: StateStore
) -> list[web.RouteDef]:
    """Return the route; it requires the fleet token.

    With a model go the `states` that were saved of it.
    """

    async def removing(request: web.Request) -> web.Response:
        asked = decode(await request.read(), RemoveModel)
        found = await asyncio.to_thread(removal, folder, asked.model)
        check_unused(found, _engines(state))
        if asked.preview:
            return json_response(await asyncio.to_thread(lambda: found.shown))
        gone = await in_thread(remove, found)
        await in_thread(states.tidy)
        for each in gone.files:
            log.info("%s: removed, as asked", each.path)
        return json_response(gone)

    return [web.post(REMOVE, guarded(guard.check, removing))]


def _engines(state: NodeState) -> list[EngineReport]:
    leaving = (each.report for each in state.leaving)
    return [*state.engines().values(), *leaving]


def check_unused(found: Removal, engines: Iterable[EngineReport]) -> None:
    """Raise ModelInUse if an engine of these models has files open. Pure.

    An engine of the same variant or file name counts, wherever its file lies.
    """
    variants = {each.variant for each in found.models}
    names = {each.name for each in found.files}
    for each in engines:
        same = each.variant in variants or each.file in names
        if same and each.state not in WITHOUT_FILES:
            raise ModelInUse(
                f"{each.variant} is {each.state} here; `edgeserve models unload"
                f" {each.variant}` lets it go first"
            )
