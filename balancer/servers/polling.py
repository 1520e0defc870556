"""Server polling: ask a server again and again, and report it as a node of the fleet.

A server tells nothing by itself. One that does not answer becomes suspect, and then
unreachable, as a node does; one that is back is recognised anew, and so is one whose
answers do not fit any more what it was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from msgspec import structs

from balancer.discovery.events import ReconnectPolicy
from balancer.fleet.current import LiveFleet
from balancer.fleet.slot_counts import SlotCounts
from balancer.prediction.servers.knowledge import ServerKnowledge
from balancer.servers.client import ServerClient
from balancer.servers.report import Look, Ours, report_of, with_shown
from balancer.servers.server import Server
from balancer.servers.silence import Silence
from edgeserve.errors import EdgeserveError, NodeLost, NotReached, SettingsError
from edgeserve.servers.profiles.base import MODELS, Profile, Replies, owners
from edgeserve.servers.recognition import Recognised, look, recognise, sentence
from edgeserve.wire import NodeReport

EVERY_SECONDS = 2.0
"""Between two looks at a server that answers."""

ASK_SECONDS = 10.0
"""Longest time for all answers of one look."""

Marks = tuple[object, ...]
"""What stays the same in the answers of a server as long as its program does."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What a look is compared with: our own requests, and what was learned."""

    slot_counts: SlotCounts
    knowledge: ServerKnowledge


class Silent(NodeLost):
    """A server took a connection, or seemed to, and did not answer in time."""


class ServerPoll:
    """Looks at one server, and keeps what is known of it in the fleet."""

    def __init__(
        self,
        current: LiveFleet,
        client: ServerClient,
        server: Server,
        pace: ReconnectPolicy,
        beside: Beside,
    ) -> None:
        self._current = current
        self._client = client
        self._server = server
        self._pace = pace
        self._beside = beside
        self._failures = 0
        self._marks: Marks = ()
        self._silence = Silence()

    async def run(self) -> None:
        """Look at the server for ever."""
        while True:
            pause = await self._look()
            await asyncio.sleep(pause)

    async def first(self) -> NodeReport:
        """Look once. Raises NodeLost and SettingsError with a sentence."""
        before = self._ours()
        return self._report(await self._asked(), before)

    def take(self, report: NodeReport) -> None:
        """Have the fleet know what it reports, if that is news."""
        server, key = self._server, self._server.setting.url
        fleet = self._current.fleet
        address = fleet.addresses.get(key)
        if address is None:
            return  # it was removed meanwhile
        last = address.last_report
        if last is not None and last.report == report and not _counts(report):
            self._current.become(fleet.heard(key))
            return
        before = last.report if last is not None else None
        report = _with_old_engines(report, before)
        self._current.become(fleet.reported(key, server.origin, report))

    async def _look(self) -> float:
        """Look once; return the seconds until the next look."""
        server = self._server
        self._silence.look(server.open, server.answered)
        try:
            self.take(await self.first())
        except Silent as error:
            if self._silence.excused(server.open, server.answered, server.begun):
                return EVERY_SECONDS
            return self._lost(str(error))
        except (EdgeserveError, SettingsError) as error:
            return self._lost(str(error))
        self._silence.end()
        self._failures = 0
        return EVERY_SECONDS

    async def _asked(self) -> Replies:
        """Ask within the time that there is. Raises NodeLost, SettingsError."""
        url = self._server.setting.url
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await self._ask()
        except TimeoutError as error:
            raise Silent(
                f"{url} did not answer within {ASK_SECONDS:g} s when it was asked for"
                " its models: it hangs, or its URL is another program's; see its log"
            ) from error
        except NotReached as error:
            if isinstance(error.__cause__, TimeoutError):
                raise Silent(str(error)) from error
            raise

    async def _ask(self) -> Replies:
        """Recognise the server, unless it is known, and ask what is to be known."""
        server = self._server
        get = partial(self._client.get, server)
        if server.found is None:
            server.read_files()
            self._client.trust(server)
            self._found(
                await recognise(get, server.setting, server.base, balancers=True)
            )
        replies = await look(get, self._known(), server.base)
        if self._marks and self._marks != marks_of(replies):
            found = await recognise(get, server.setting, server.base, balancers=True)
            if found != server.found:
                self._found(found)
                replies = await look(get, found, server.base)
        self._marks = marks_of(replies)
        if problem := self._known().profile.problem(replies):
            raise NodeLost(f"{server.setting.url}: {problem}")
        return replies

    def _found(self, found: Recognised) -> None:
        self._server.came_back(found)
        self._marks = ()

    def _known(self) -> Recognised:
        if self._server.found is None:
            raise NodeLost(f"{self._server.setting.url} was not recognised yet")
        return self._server.found

    def _report(self, replies: Replies, before: Ours) -> NodeReport:
        """Return its report. Raises NodeLost where it has no models."""
        profile = self._known().profile
        report = report_of(self._looked(self._server, profile, replies, before))
        report = with_shown(report, self._server.shown)
        if not report.engines:
            self._refuse(replies)
        return report

    def _ours(self) -> Ours:
        return self._beside.slot_counts.ours(self._server.id)

    def _looked(
        self, server: Server, profile: Profile, replies: Replies, before: Ours
    ) -> Look:
        """Compare the answers with what was at work here before and after them."""
        ours, known = self._ours(), self._beside.knowledge.of_server(server.id)
        running = profile.running(replies)
        if waiting := profile.waiting(replies):
            for each in known.values():
                if each.width is not None:
                    each.width.queued(running - waiting)
        return Look(
            setting=server.setting,
            profile=profile,
            replies=replies,
            epoch=server.epoch,
            ours=ours,
            most_ours={
                **before,
                **{k: max(n, before.get(k, 0)) for k, n in ours.items()},
            },
            known=known,
        )

    def _refuse(self, replies: Replies) -> NoReturn:
        """Say why it has no models. Raises NodeLost."""
        setting = self._server.setting
        if known := self._known().profile.models(replies):
            there = ", ".join(each.id for each in known[:8])
            raise NodeLost(
                f"{setting.url} has none of the `models` named; it has {there}"
            )
        raise NodeLost(sentence(setting, MODELS, replies[MODELS]))

    def _lost(self, why: str) -> float:
        """Note that it does not serve; return the seconds until the next look."""
        self._silence.end()
        self._server.found = None
        self._failures += 1
        key, now = self._server.setting.url, self._pace.clock()
        fleet = self._current.fleet
        address = fleet.addresses.get(key)
        if address is not None and address.state == "up":
            self._current.become(fleet.suspected(key, why, now))
        else:
            self._current.become(fleet.missed(key, why, now))
        return self._pace.pause(self._failures)


def marks_of(replies: Replies) -> Marks:
    """Return what tells programs apart in the answers to one look. Pure."""
    program = replies[MODELS].headers.get("server", "")
    absent = (path for path, reply in replies.items() if reply.status == 404)
    return program, frozenset(owners(replies)), frozenset(absent)


def _counts(report: NodeReport) -> bool:
    """Whether it counts requests: an equal number may be of other ones by now. Pure."""
    return any(each.busy for each in report.engines)


def _with_old_engines(report: NodeReport, before: NodeReport | None) -> NodeReport:
    """Keep the engines that are as before: equal reports count once. Pure."""
    old = {each.id: each for each in before.engines} if before else {}
    engines = tuple(
        old[each.id] if not each.busy and old.get(each.id) == each else each
        for each in report.engines
    )
    return structs.replace(report, engines=engines)
