"""Server polling: ask servers again and again, and report them as nodes of the fleet.

A server tells nothing by itself. One that does not answer becomes suspect, and then
unreachable, as a node does; one that is back is recognised anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from msgspec import structs

from balancer.discovery.events import ReconnectPolicy
from balancer.fleet.current import LiveFleet
from balancer.servers.client import Server, ServerClient, server_of
from balancer.servers.report import report_of
from edgeserve import http
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import EdgeserveError, NodeLost, SettingsError
from edgeserve.runtime.background import background, declared
from edgeserve.servers.profiles.base import MODELS, Replies, Reply
from edgeserve.servers.recognition import look, recognise, sentence
from edgeserve.wire import NodeReport

EVERY_SECONDS = 2.0
"""Between two looks at a server that answers."""

ASK_SECONDS = 10.0
"""Longest time for all answers of one look."""

POLL = declared("server poll")


@asynccontextmanager
async def polling(
    settings: BalancerSettings, current: LiveFleet, pace: ReconnectPolicy
) -> AsyncGenerator[ServerClient]:
    """Poll the servers that are set; yields their client. Raises SettingsError.

    They get connections of their own: only nodes can prove that they hold the token.
    """
    servers = [server_of(each) for each in settings.all_servers()]
    connections = http.upstream(connect_seconds=settings.connect_seconds)
    async with connections as upstream, background() as tasks:
        client = ServerClient(upstream)
        for each in servers:
            client.servers[each.id] = each
            key, origins = each.setting.url, (each.origin,)
            current.become(current.fleet.discovered(key, "server", origins, None))
            poll = _Poll(current, client, each, pace)
            tasks.start(POLL, poll.run, each.name)
        yield client


class _Poll:
    def __init__(
        self,
        current: LiveFleet,
        client: ServerClient,
        server: Server,
        pace: ReconnectPolicy,
    ) -> None:
        self._current = current
        self._client = client
        self._server = server
        self._pace = pace
        self._failures = 0

    async def run(self) -> None:
        """Look at the server for ever."""
        while True:
            pause = await self._look()
            await asyncio.sleep(pause)

    async def _look(self) -> float:
        """Look once; return the seconds until the next look."""
        url = self._server.setting.url
        try:
            async with asyncio.timeout(ASK_SECONDS):
                replies = await self._ask()
            self._take(replies)
        except TimeoutError:
            return self._lost(
                f"{url} did not answer within {ASK_SECONDS:g} s when it was asked for"
                " its models: it hangs, or its URL is another program's; see its log"
            )
        except (EdgeserveError, SettingsError) as error:
            return self._lost(str(error))
        self._failures = 0
        return EVERY_SECONDS

    async def _ask(self) -> Replies:
        """Recognise the server, unless it is known, and ask what is to be known."""
        server = self._server
        get = partial(self._client.get, server)
        if server.found is None:
            server.read_key()
            server.found = await recognise(get, server.setting, server.base)
            server.epoch += 1
        replies = await look(get, server.found, server.base)
        if problem := server.found.profile.problem(replies):
            raise NodeLost(f"{server.setting.url}: {problem}")
        return replies

    def _take(self, replies: Replies) -> None:
        """Report what came, if it is news."""
        server, key = self._server, self._server.setting.url
        if server.found is None:
            return
        report = report_of(server.setting, server.found.profile, replies, server.epoch)
        if not report.engines:
            raise NodeLost(self._no_engines(replies[MODELS]))
        fleet = self._current.fleet
        last = fleet.addresses[key].last_report
        if last is not None and last.report == report:
            self._current.become(fleet.heard(key))
            return
        before = last.report if last is not None else None
        report = _with_old_engines(report, before)
        self._current.become(fleet.reported(key, server.origin, report))

    def _no_engines(self, reply: Reply) -> str:
        setting = self._server.setting
        if self._server.found and (
            known := self._server.found.profile.models({MODELS: reply})
        ):
            there = ", ".join(each.id for each in known[:8])
            return f"{setting.url} has none of the `models` named; it has {there}"
        return sentence(setting, MODELS, reply)

    def _lost(self, why: str) -> float:
        """Note that it does not serve; return the seconds until the next look."""
        self._server.found = None
        self._failures += 1
        key, now = self._server.setting.url, self._pace.clock()
        fleet = self._current.fleet
        if fleet.addresses[key].state == "up":
            self._current.become(fleet.suspected(key, why, now))
        else:
            self._current.become(fleet.missed(key, why, now))
        return self._pace.pause(self._failures)


def _with_old_engines(report: NodeReport, before: NodeReport | None) -> NodeReport:
    """Keep the engines that are as before: equal reports count once. Pure."""
    old = {each.id: each for each in before.engines} if before else {}
    engines = tuple(
        old[each.id] if old.get(each.id) == each else each for each in report.engines
    )
    return structs.replace(report, engines=engines)
