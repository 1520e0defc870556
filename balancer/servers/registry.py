"""Server registry: has each server polled, and adds and removes servers meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from balancer.discovery.events import ReconnectPolicy
from balancer.fleet.current import LiveFleet
from balancer.servers.client import ServerClient
from balancer.servers.polling import Beside, ServerPoll
from balancer.servers.server import Server
from balancer.servers.table import ServerTable
from edgeserve import http
from edgeserve.config.servers import is_url, place_of
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import BadRequest, EdgeserveError, SettingsError
from edgeserve.runtime.background import Started, Tasks, background, declared

POLL = declared("server poll")


class UnknownServer(EdgeserveError):
    """No server has that name or URL."""

    status = 404
    code = "server_not_found"
    kind = "invalid_request_error"


class ServerOfSettings(EdgeserveError):
    """The server belongs to the settings."""

    status = 409
    code = "server_of_settings"
    kind = "invalid_request_error"


class ServerUnusable(EdgeserveError):
    """The server is not added, as it does not answer as one that can serve."""

    status = 422
    code = "server_unusable"
    kind = "invalid_request_error"


class ServerRegistry:
    """The servers that are polled, and the client that sends them requests."""

    def __init__(
        self,
        table: ServerTable,
        client: ServerClient,
        current: LiveFleet,
        pace: ReconnectPolicy,
        tasks: Tasks,
        beside: Beside,
    ) -> None:
        self.table = table
        self.client = client
        self._current = current
        self._pace = pace
        self._background = tasks
        self._beside = beside
        self._tasks = dict[str, Started]()
        self._epochs = dict[str, int]()  # of those that were removed
        self._changing = asyncio.Lock()

    def start(self) -> None:
        """Poll all that are known."""
        for each in self.table.all:
            self._follow(each, self._poll(each))

    async def add(self, server: Server) -> None:
        """Add a server, once it has answered as one that can serve.

        Raises BadRequest, ServerUnusable, NotStored.
        """
        self._check(server)
        server.epoch = self._epochs.get(server.id, 0)
        poll = self._poll(server)
        try:
            report = await poll.first()
        except (EdgeserveError, SettingsError) as error:
            self.client.distrust(server)
            raise ServerUnusable(f"not added: {error}") from error
        async with self._changing:
            self._check(server)
            self.table.added.append(server)
            self._follow(server, poll)
            poll.take(report)
            await self.table.keep()

    async def remove(self, name: str) -> Server:
        """Remove the server that `name` means; requests that it answers go on.

        Raises UnknownServer, ServerOfSettings, BadRequest, NotStored.
        """
        async with self._changing:
            server = self.named(name)
            if server.upstream:
                raise ServerOfSettings(
                    f"{server.name} is adopted by its node; end it there, or start the"
                    " node without --adopt"
                )
            if server in self.table.fixed:
                raise ServerOfSettings(
                    f"{server.name} is in the settings, by `--server` or under"
                    " [[server]]; remove it there and restart the balancer"
                )
            self.table.added.remove(server)
            self.forget(server)
            await self.table.keep()
            return server

    @property
    def all(self) -> list[Server]:
        """Those of the settings, those that were added, those that nodes adopted."""
        lent = [each for each in self.client.servers.values() if each.upstream]
        return [*self.table.all, *lent]

    def lend(self, server: Server) -> None:
        """Poll a server that a node has adopted."""
        server.epoch = self._epochs.get(server.id, 0)
        self._follow(server, self._poll(server))

    def forget(self, server: Server) -> None:
        """Poll a server no longer; requests that it answers go on."""
        self._tasks.pop(server.id).cancel()
        del self.client.servers[server.id]
        self.client.distrust(server)
        self._epochs[server.id] = server.epoch
        self._current.become(self._current.fleet.forgotten(server.setting.url))

    def named(self, name: str) -> Server:
        """Return the server that a name, a URL or an id means."""
        place = place_of(name) if is_url(name) else ""
        found = [
            each
            for each in self.all
            if name in {each.name, each.id, self.shown_name(each)}
            or place == place_of(each.setting.url)
        ]
        if not found:
            there = ", ".join(map(self.shown_name, self.all)) or "none"
            raise UnknownServer(f"no server is called {name!r}; there are: {there}")
        if len(found) > 1:
            urls = " and ".join(each.setting.url for each in found)
            raise BadRequest(
                f"several servers are called {name!r}; use the URL: {urls}"
            )
        return found[0]

    def shown_name(self, server: Server) -> str:
        """Return its name in the fleet, which no other node has."""
        node = self._current.fleet.node(server.id)
        return node.name if node else server.name

    def _check(self, server: Server) -> None:
        self.table.check(server)
        if server.setting.url in self._current.fleet.addresses:
            raise BadRequest(f"{server.setting.url} is followed as a node already")

    def _poll(self, server: Server) -> ServerPoll:
        return ServerPoll(self._current, self.client, server, self._pace, self._beside)

    def _follow(self, server: Server, poll: ServerPoll) -> None:
        self.client.servers[server.id] = server
        key, origins = server.setting.url, (server.origin,)
        fleet = self._current.fleet
        self._current.become(
            fleet.discovered(key, "server", origins, server.id, server.name)
        )
        started = self._background.start(POLL, poll.run, server.name)
        self._tasks[server.id] = started


@asynccontextmanager
async def serving_servers(
    settings: BalancerSettings,
    current: LiveFleet,
    pace: ReconnectPolicy,
    beside: Beside,
) -> AsyncGenerator[ServerRegistry]:
    """Poll the servers that are known until the block ends. Raises SettingsError.

    They get connections of their own: only nodes can prove that they hold the token.
    """
    table = ServerTable(settings.all_servers(), settings.state_dir)
    connections = http.upstream(connect_seconds=settings.connect_seconds)
    async with connections as upstream, background() as tasks:
        client = ServerClient(upstream)
        registry = ServerRegistry(table, client, current, pace, tasks, beside)
        registry.start()
        yield registry
