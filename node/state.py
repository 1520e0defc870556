"""Node state: the node's current engines and hardware, and the feed of changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from edgeserve import __version__
from edgeserve.http.sse import write_event
from edgeserve.orders.engines import DesiredModel, ModelProblem
from edgeserve.orders.pulls import PullReport
from edgeserve.orders.waiting import WaitingRequests
from edgeserve.runtime.background import failures
from edgeserve.wire import (
    AvailableModel,
    EngineChange,
    EngineReport,
    NodeReport,
    difference,
    encode,
)
from node.adoption.finding import Adopted
from node.adoption.relayed import RelayedRequests
from node.hardware.sample import LatestHardware
from node.hardware.thermal import slowed
from node.supervision.supervisor import Supervisor

HEARTBEAT_SECONDS = 1.0
COALESCE_SECONDS = 0.05
"""Seconds between two events of one engine; changes in between are merged."""

Engines = Callable[[], Mapping[str, EngineReport]]


class EventFeed:
    """Sends changes to each follower.

    `report` and `engines` return the current state, so a slow follower needs no
    history.
    """

    def __init__(self, report: Callable[[], NodeReport], engines: Engines) -> None:
        self._report = report
        self._engines = engines
        self._followers: set[_Follower] = set()

    @property
    def followed(self) -> bool:
        """Whether there is a follower."""
        return bool(self._followers)

    def engine_changed(self, id_: str) -> None:
        """Send one engine to every follower."""
        for follower in self._followers:
            follower.stale.add(id_)
            follower.woken.set()

    def report_changed(self) -> None:
        """Send a whole report to every follower."""
        for follower in self._followers:
            follower.report = True
            follower.woken.set()

    def close(self) -> None:
        """End every stream."""
        for follower in self._followers:
            follower.closed = True
            follower.woken.set()

    async def follow(self, *, changes: bool = False) -> AsyncGenerator[bytes]:
        """Yield server-sent events until the feed is closed: a full report first.

        `changes`: after that only the fields of a report that changed.
        """
        follower = _Follower(changes=changes)
        self._followers.add(follower)
        loop = asyncio.get_running_loop()
        try:
            yield self._news(follower)
            beat = loop.time() + HEARTBEAT_SECONDS
            while not follower.closed:
                if loop.time() >= beat:
                    yield write_event(b"{}", "heartbeat")
                    beat = loop.time() + HEARTBEAT_SECONDS
                elif await _woken(follower.woken, beat):
                    if news := self._news(follower):
                        yield news
                    await asyncio.sleep(COALESCE_SECONDS)
            # A node that leaves changes its report and closes the feed at once.
            if news := self._news(follower):
                yield news
        finally:
            self._followers.discard(follower)

    def _news(self, follower: _Follower) -> bytes:
        """Return the events that the follower has not received yet."""
        stale, full = follower.stale, follower.report
        follower.stale, follower.report = set(), False
        follower.woken.clear()
        if full:
            return follower.reported(self._report())
        engines = self._engines()
        found = [engines[id_] for id_ in sorted(stale) if id_ in engines]
        follower.engines_sent(found)
        return b"".join(
            write_event(encode(EngineChange(engine=each)), "engine") for each in found
        )


class _Follower:
    """What one follower of the feed has not received yet."""

    def __init__(self, *, changes: bool) -> None:
        self.woken = asyncio.Event()
        self.stale = set[str]()
        self.report = True
        self.closed = False
        self._changes = changes
        self._known: NodeReport | None = None  # as the follower has it

    def reported(self, report: NodeReport) -> bytes:
        """Return the event that brings it up to date: a report, or what changed."""
        before, self._known = self._known, report
        if self._changes and before is not None:
            change = difference(before, report)
            if change is not None:
                return write_event(encode(change), "change") if change else b""
        return write_event(encode(report), "report")

    def engines_sent(self, engines: Sequence[EngineReport]) -> None:
        """Note what it has got of single engines."""
        if self._changes and self._known is not None:
            by_id = {each.id: each for each in (*self._known.engines, *engines)}
            engines = tuple(by_id.values())
            self._known = msgspec.structs.replace(self._known, engines=engines)


async def _woken(event: asyncio.Event, until: float) -> bool:
    """Wait for the event; False when `until`, in loop time, comes first."""
    try:
        async with asyncio.timeout_at(until):
            await event.wait()
    except TimeoutError:
        return False
    return True


class Identified(Protocol):
    """The node's id, which changes where another node has it, too."""

    @property
    def id(self) -> str:
        """The id now."""
        ...

    def renew(self) -> None:
        """Take a new id."""
        ...


@dataclass(kw_only=True)
class NodeState:
    """Mutable state of the node; only `node.app`, the shelf and discovery change it."""

    name: str
    identity: Identified
    instance: str
    hardware: LatestHardware
    port: int = 0
    supervisors: list[Supervisor] = field(default_factory=list[Supervisor])
    leaving: list[Supervisor] = field(default_factory=list[Supervisor])
    """Engines that are no longer reported, and finish their requests."""
    problems: tuple[str, ...] = ()
    available: tuple[AvailableModel, ...] = ()
    absent: tuple[EngineReport, ...] = ()
    """Engines that load when they are asked for, or soon."""
    desired: tuple[DesiredModel, ...] = ()
    unmet: tuple[ModelProblem, ...] = ()
    pulls: tuple[PullReport, ...] = ()
    adopted: tuple[Adopted, ...] = ()
    """Servers of other programs that the fleet may use through this node."""
    unadopted: tuple[str, ...] = ()
    """Why servers that are named are not among them."""
    relayed: RelayedRequests = field(default_factory=RelayedRequests)
    draining: bool = False
    left_at: float = 0.0
    """When it began to drain, by the monotonic clock."""

    def __post_init__(self) -> None:
        """Open the feed of changes."""
        self.feed = EventFeed(self.report, self.engines)

    def report(self) -> NodeReport:
        """Return the report for balancers."""
        return NodeReport(
            id=self.identity.id,
            instance=self.instance,
            name=self.name,
            version=__version__,
            state="draining" if self.draining else "up",
            port=self.port,
            hardware=self.hardware.latest,
            engines=tuple(self.engines().values()),
            problems=(*self.problems, *self.unadopted),
            slowed=tuple(slowed(self.hardware.latest.thermal)),
            available=self.available,
            desired=self.desired,
            unmet=self.unmet,
            pulls=self.pulls,
            servers=tuple(each.report for each in self.adopted),
            failures=dict(failures.counts),
        )

    def engines(self) -> Mapping[str, EngineReport]:
        """Return each engine's report, by id."""
        absent = {each.id: each for each in self.absent}
        return absent | {each.spec.id: each.report for each in self.supervisors}

    def supervisor(self, id_: str) -> Supervisor | None:
        """Return the engine with that id; None where it is not in memory."""
        return next((e for e in self.supervisors if e.spec.id == id_), None)

    def serve(self, supervisors: Sequence[Supervisor]) -> None:
        """Replace the set of engines."""
        self.supervisors = list(supervisors)
        self.feed.report_changed()

    def wait(self, said: WaitingRequests) -> None:
        """Let a balancer have its turn at the engines that its requests wait for."""
        for each in self.supervisors:
            requests = said.engines.get(each.spec.id, 0)
            each.slots.waits(said.balancer, requests)

    def pulled(self, pulls: tuple[PullReport, ...]) -> None:
        """Report how far the pulls are."""
        self.pulls = pulls
        self.feed.report_changed()

    def adopt(self, adopted: tuple[Adopted, ...], unadopted: tuple[str, ...]) -> None:
        """Replace the servers of other programs."""
        self.adopted, self.unadopted = adopted, unadopted
        self.feed.report_changed()

    def leave(self) -> None:
        """Refuse new requests from now on, and report that."""
        if not self.draining:
            self.draining, self.left_at = True, time.monotonic()
            self.feed.report_changed()
