"""Answering: all routes of the node, and what answers the paths beside them."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from edgeserve.config.settings import NodeSettings
from edgeserve.http.client.raw import Connecting
from edgeserve.http.types import Handler, Upstream
from edgeserve.openai import ROUTES
from edgeserve.security.tokens import Guard
from node.api.admin import routes
from node.api.caches import CacheRoutes
from node.api.files import BEGIN, FileHandler
from node.api.groups import STREAMS, GroupStreams, group_routes
from node.api.inference import InferenceHandler
from node.api.orders import order_routes
from node.api.pulls import PullRoutes
from node.api.removal import removal_routes
from node.api.servers import RELAY, ServerRelay
from node.caches.slots import SlotCaches
from node.kept_log import KeptLog
from node.lifecycle.groups import GroupOrders
from node.lifecycle.orders import Orders
from node.lifecycle.sleeping import Sleeper
from node.pulls.running import Pulling
from node.state import NodeState

OURS = frozenset((*ROUTES, *STREAMS))
PIPED = (BEGIN, RELAY)
"""What paths begin with whose answers are passed on as they come."""


@dataclass(frozen=True, kw_only=True)
class Answering:
    """The parts of a node that answer requests. `nodes` are other nodes."""

    state: NodeState
    settings: NodeSettings
    guard: Guard
    kept: KeptLog
    engines: Upstream
    nodes: Connecting
    orders: Orders
    sleeper: Sleeper
    pulls: Pulling
    caches: SlotCaches

    @property
    def handler(self) -> Handler:
        """What answers the paths that are `piped`: each leaves others to the next."""
        state, guard = self.state, self.guard
        engines = InferenceHandler(state, self.engines, guard)
        servers = ServerRelay(state, self.engines, guard, engines)
        find = (self.pulls.library.path, self.caches.path)
        files = FileHandler(find, guard, servers)
        return GroupStreams(self._groups, self.orders.workers, guard, files)

    @property
    def routes(self) -> list[web.RouteDef]:
        """The routes for all else."""
        state, guard, folder = self.state, self.guard, self.settings.models_dir
        return [
            *routes(state, guard, self.kept),
            *order_routes(self.orders, self.sleeper, guard),
            *group_routes(self._groups, self.nodes, guard),
            *PullRoutes(self.pulls.jobs, self.pulls.library, guard).routes(),
            *removal_routes(state, folder, guard, self.caches.store),
            *CacheRoutes(self.caches, guard).routes(),
        ]

    @property
    def _groups(self) -> GroupOrders:
        return GroupOrders(self.state, self.settings, self.orders)


def piped(path: str) -> bool:
    """Whether a path's requests and answers are passed on as they come."""
    return path in OURS or path.startswith(PIPED)
