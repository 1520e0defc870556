"""Node events: follow the event stream of each node, and reconnect when it breaks.

A stream that breaks or falls silent makes its node suspect at once. Its addresses are
tried in order, again and again, with a short back-off: a node that is back should not
stay idle.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import msgspec
from msgspec import structs

from balancer.discovery.hints import Discovered, OnEvent, Withdrawn
from balancer.discovery.node_client import NodeClient
from balancer.fleet.current import LiveFleet
from balancer.fleet.members import NodeAddress
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import EdgeserveError, NodeLost, in_words
from edgeserve.http.sse import Event, EventReader
from edgeserve.http.types import Answer, Origin
from edgeserve.openai import message
from edgeserve.runtime.background import Started, Tasks, background, declared
from edgeserve.runtime.clock import ActiveClock, unless_silent
from edgeserve.runtime.log import warn_once
from edgeserve.wire import PROTOCOL, EngineChange, NodeReport, changed, decode

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 2.0

CALM_SECONDS = 10.0
"""How long a node that has been here is sought in peace. Else a stranger that goes on
and on announcing other addresses for it would keep it away."""

MOST_SILENT = 512
"""Nodes that were announced and have not answered. Each is tried again and again, and
any machine on the network can announce as many as it likes."""

FOLLOW = declared("node events", "on-failure")


@dataclass(frozen=True, kw_only=True)
class ReconnectPolicy:
    """When a silent node is suspect, and forgotten; the pauses between attempts.

    Times are seconds; `jitter` is between 0 and 1. `starting`: so long after it was
    seen first, a machine that refuses connections is no fault.
    """

    suspect: float
    forget: float
    starting: float = 10.0
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = field(default=random.random)

    def pause(self, failures: int) -> float:
        """Return how long to wait after so many failures; half of it is random."""
        longest = min(FIRST_PAUSE * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE)
        return longest * (1 + self.jitter()) / 2


def pace_of(settings: BalancerSettings) -> ReconnectPolicy:
    """Return the policy of the settings."""
    return ReconnectPolicy(
        suspect=settings.suspect_seconds, forget=settings.forget_seconds
    )


@asynccontextmanager
async def watching(
    current: LiveFleet, nodes: NodeClient, pace: ReconnectPolicy, awake: ActiveClock
) -> AsyncGenerator[OnEvent]:
    """Follow discovered nodes until the block ends; yields the function to call."""
    async with background() as tasks:
        yield _Follower(current, nodes, pace, awake, tasks).take


class _Follower:
    """Follows each key until it is forgotten.

    One task per key, started again when its addresses change.
    """

    def __init__(
        self,
        current: LiveFleet,
        nodes: NodeClient,
        pace: ReconnectPolicy,
        awake: ActiveClock,
        tasks: Tasks,
    ) -> None:
        self._current = current
        self._nodes = nodes
        self._pace = pace
        self._awake = awake
        self._background = tasks
        self._tasks: dict[str, tuple[Started, float]] = {}  # and when it began
        self._pausing: dict[str, asyncio.Event] = {}

    def take(self, event: Discovered | Withdrawn) -> None:
        fleet = self._current.fleet
        if isinstance(event, Withdrawn):
            self._current.become(fleet.withdrawn(event.key, self._pace.clock()))
            return
        known = fleet.addresses.get(event.key)
        if known is None and event.source == "mdns" and not self._makes_room():
            warn_once(log, f"more than {MOST_SILENT} nodes are announced and silent")
            return
        fleet = self._current.fleet
        self._current.become(
            fleet.discovered(event.key, event.source, event.origins, event.id)
        )
        if known is None or known.origins != event.origins:
            self._restart(event.key)
        else:
            self._hurry(event.key)

    def _makes_room(self) -> bool:
        """Forget an announced node that was tried in vain, if there are too many."""
        seen = self._current.fleet.addresses.values()
        silent = [
            each for each in seen if each.source == "mdns" and not each.last_report
        ]
        if len(silent) < MOST_SILENT:
            return True
        vain = next((each.key for each in silent if each.state == "unreachable"), None)
        if vain is None:
            return False
        self._tasks.pop(vain)[0].cancel()
        self._current.become(self._current.fleet.forgotten(vain))
        return True

    def _hurry(self, key: str) -> None:
        """Try at once, if it waits: the node was seen again."""
        if key in self._pausing:
            self._pausing[key].set()

    def _restart(self, key: str) -> None:
        """Seek it at its new addresses; one that is here stays, whatever they are."""
        address, now = self._current.fleet.addresses[key], self._pace.clock()
        if address.state == "up":
            return
        if key in self._tasks:
            task, began = self._tasks[key]
            if address.last_report and now - began < CALM_SECONDS:
                self._hurry(key)
                return
            task.cancel()
        task = self._background.start(FOLLOW, lambda: self._follow(key), key)
        self._tasks[key] = task, now

    async def _follow(self, key: str) -> None:
        failures, pace = 0, self._pace
        while key in self._current.fleet.addresses:
            began = pace.clock()
            if await self._any_origin(key) and pace.clock() - began > FIRST_PAUSE:
                failures = 0
                continue
            failures += 1
            fleet = self._current.fleet
            if fleet.forgettable(key, pace.clock(), pace.forget):
                self._current.become(fleet.forgotten(key))
                del self._tasks[key]
                return
            await self._pause(key, pace.pause(failures))

    def _may_start(self, key: str) -> bool:
        """Whether it has not been here, and was seen so recently that it may start."""
        state, (_, began) = self._current.fleet.addresses[key].state, self._tasks[key]
        return state == "seen" and self._pace.clock() - began < self._pace.starting

    async def _pause(self, key: str, seconds: float) -> None:
        over = self._pausing[key] = asyncio.Event()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await over.wait()
        finally:
            # A follower that has taken this one's place may be pausing by now.
            if self._pausing.get(key) is over:
                del self._pausing[key]

    async def _any_origin(self, key: str) -> bool:
        """Follow the first origin that answers, to its end; False when none does."""
        problems, starts = list[tuple[str, str]](), self._may_start(key)
        for origin in candidates(self._current.fleet.addresses[key]):
            try:
                await self._listen(key, origin)
            except EdgeserveError as error:
                problems.append((origin.url, str(error)))
                starts &= isinstance(error.__cause__, ConnectionRefusedError)
            except TimeoutError:
                starts = False
                problems.append((origin.url, f"{origin.url} is silent"))
            except Exception as error:
                self._suspect(key, f"{origin.url}: {in_words(error)}")
                raise
            if self._current.fleet.addresses[key].state == "up":
                why = problems[-1][1] if problems else f"{origin.url} closed its stream"
                self._suspect(key, why)
                return True
        if problems and starts:
            return False  # nothing listens there yet
        why = together(problems) or "it has no address that can be reached"
        fleet = self._current.fleet
        self._current.become(fleet.missed(key, why, self._pace.clock()))
        return False

    def _suspect(self, key: str, why: str) -> None:
        fleet = self._current.fleet
        self._current.become(fleet.suspected(key, why, self._pace.clock()))

    async def _listen(self, key: str, origin: Origin) -> None:
        """Read one stream until it ends. Raises where it breaks or falls silent.

        Where the node shows a certificate, requests go only to the holder of that one.
        """
        expected = origin.id
        async with (
            unless_silent(self._awake, self._pace.suspect) as silence,
            self._nodes.events(origin) as answer,
        ):
            await _require_events(answer, origin)
            origin = structs.replace(origin, id=answer.id)
            reader = EventReader()
            while piece := await answer.chunk():
                silence.heard()
                for event in reader.feed(piece):
                    self._take(key, origin, expected, event)

    def _take(self, key: str, origin: Origin, expected: str, event: Event) -> None:
        fleet = self._current.fleet
        match event.name:
            case "report":
                report = readable_report(event.data, expected, origin)
                self._current.become(fleet.reported(key, origin, report))
            case "engine":
                change = decode(event.data, EngineChange)
                self._current.become(fleet.engine_changed(key, change.engine))
            case "change":
                known = fleet.addresses[key].last_report
                if known is not None and known.origin == origin:
                    report = changed(known.report, event.data)
                    self._current.become(fleet.reported(key, origin, report))
            case _:
                self._current.become(fleet.heard(key))


def candidates(address: NodeAddress) -> tuple[Origin, ...]:
    """Return where to seek a node, in order, and the id that has to answer. Pure.

    Any machine can announce a node in the name of another: so the address and the
    certificate with which it was here last remain, as the second choice.
    """
    expected = address.expected or ""
    announced = tuple(structs.replace(each, id=expected) for each in address.origins)
    known = address.last_report.origin if address.last_report else None
    if known is None or not known.id:
        return announced
    if known in announced or structs.replace(known, id="") in announced:
        return announced
    return (*announced[:1], known, *announced[1:])


URL = "\0"
"""Stands for the address in a problem that several addresses have."""


def together(problems: Iterable[tuple[str, str]]) -> str:
    """Put the problems of several addresses in one sentence, each once. Pure."""
    urls: dict[str, list[str]] = {}
    for url, problem in problems:
        urls.setdefault(problem.replace(url, URL, 1), []).append(url)
    return "; ".join(
        problem.replace(URL, ", ".join(where), 1) for problem, where in urls.items()
    )


async def _require_events(answer: Answer, origin: Origin) -> None:
    if answer.status != 200:
        sentence = message(await answer.read())
        raise NodeLost(f"{origin.url} answered {answer.status}: {sentence}")


class _ReportHead(msgspec.Struct):
    """The fields of a report in every version of the protocol."""

    protocol: int
    id: str


def readable_report(data: bytes, expected: str, origin: Origin) -> NodeReport:
    """Decode a report. Raises NodeLost for another protocol or another node.

    `expected` is the id that was announced; "" for any.
    """
    head = decode(data, _ReportHead)
    if head.protocol != PROTOCOL:
        raise NodeLost(
            f"{origin.url} speaks protocol {head.protocol} and this balancer"
            f" {PROTOCOL}; install the same edgeserve on both"
        )
    if expected and head.id != expected:
        raise NodeLost(f"{origin.url} is another node than the one announced there")
    if origin.id not in {"", head.id}:
        raise NodeLost(f"{origin.url} reports an id that is not its certificate's")
    return decode(data, NodeReport)
