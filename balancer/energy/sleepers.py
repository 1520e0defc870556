"""Sleepers: sends machines to sleep that nothing needs, and wakes them.

It looks once a second, and at once when a request has to wait. Machines that sleep stay
in the fleet with their models; `wake.py` and `sleep.py` decide, a node may refuse.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from balancer.discovery.hints import Discovered, OnEvent, Source
from balancer.discovery.node_answers import told
from balancer.discovery.node_client import NodeClient
from balancer.energy.kept import Kept, KeptSleepers, Sleeper
from balancer.energy.sleep import AwakeMachine, needed, to_sleep
from balancer.energy.waker import Waker
from balancer.fleet.members import LastReport, Node
from balancer.state import BalancerState
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import BadRequest, EdgeserveError, NodeLost
from edgeserve.network import is_own
from edgeserve.orders.sleep import SLEEP, SleepOrder
from edgeserve.reports.sleep import Sleep
from edgeserve.runtime.background import Tasks, background, declared
from edgeserve.wire import encode

SLEEPERS = declared("sleepers", "on-failure")
ORDER = declared("sleep order", "never")

LOOK_SECONDS, LEAST_PAUSE = 1.0, 0.05
ANSWER_SECONDS = 15.0
NEWS_SECONDS = 2.0
HELD_SECONDS = 300.0
"""So long a machine is not told to sleep again that has refused."""

SOURCES: dict[str, Source] = {
    "mdns": "mdns", "dns": "dns", "registered": "registered", "static": "static",
}  # fmt: skip

Clock = Callable[[], float]


@asynccontextmanager
async def tending_sleepers(
    state: BalancerState,
    nodes: NodeClient,
    settings: BalancerSettings,
    on_event: OnEvent,
    taken: asyncio.Event,
) -> AsyncGenerator[Sleepers]:
    """Let machines sleep and wake them for the length of the block.

    Once `taken` is set, another process does.
    """
    async with background() as tasks:
        sleepers = Sleepers(state, nodes, settings, tasks)
        sleepers.restore(on_event)
        tasks.start(SLEEPERS, lambda: sleepers.run(taken))
        yield sleepers


class Sleepers:
    """Machines that sleep or may. `least` is how many engines a model must have."""

    def __init__(
        self,
        state: BalancerState,
        nodes: NodeClient,
        settings: BalancerSettings,
        tasks: Tasks,
        clock: Clock = time.monotonic,
    ) -> None:
        self.least: Callable[[str], int] = lambda _: 0
        self._state, self._nodes, self._tasks = state, nodes, tasks
        self._settings, self._clock = settings, clock
        self._kept = KeptSleepers(settings.state_dir)
        kept = self._kept.last
        self.waker = Waker(
            state, settings.wake_command, settings.prefer, tasks, clock, kept
        )
        self._awake: dict[str, float] = {}
        self._used: dict[str, float] = {}
        self._held: dict[str, float] = {}
        self._asleep = False
        self._wake = asyncio.Event()
        state.queue.grows.subscribe(self._grown)

    def restore(self, on_event: OnEvent) -> None:
        """Take the machines into the fleet that slept when the last process ended."""
        for each in self._kept.last.asleep:
            if each.source == "static" and each.key not in self._settings.nodes:
                continue
            known = each.report.id
            on_event(Discovered(each.key, each.origins, known, each.source))
            last_report = LastReport(each.origin, each.report)
            current = self._state.current
            current.become(current.fleet.rests(each.key, last_report))

    def _grown(self) -> None:
        """Look soon: a request waits, perhaps for a machine that sleeps."""
        if self._asleep:
            self._wake.set()

    async def run(self, taken: asyncio.Event) -> None:
        """Look, now and whenever a request has to wait; until another process does."""
        while not taken.is_set():
            self._wake.clear()
            self.look(self._clock())
            await self._kept.keep(self._now)
            await asyncio.sleep(LEAST_PAUSE)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()

    def look(self, now: float) -> None:
        """Follow the fleet, then wake and send to sleep."""
        self._state.predictive.energy.look(self._state.current.fleet.nodes, now)
        self._asleep = False
        for node in self._state.current.fleet.nodes:
            self._follow(node, now)
        self.waker.look(now)
        if not self._state.queue.waiting:
            self._let_sleep(now)

    def _follow(self, node: Node, now: float) -> None:
        """Note since when a machine is awake."""
        self._asleep |= node.state == "asleep"
        if node.state != "up":
            self._awake.pop(node.id, None)
            return
        self._awake.setdefault(node.id, now)
        self.waker.came_up(node, now)

    def _let_sleep(self, now: float) -> None:
        machine = to_sleep(self._machines(now), self._settings.sleep_after)
        if machine is not None:
            self._held[machine.id] = now + HELD_SECONDS
            why = f"nothing has needed it for {machine.idle:.0f} s"
            node = self._state.current.fleet.by_id[machine.id]
            if is_own(node.origin.host):
                return
            self._tasks.start(ORDER, partial(self._ordered, node, why))

    def _machines(self, now: float) -> Iterator[AwakeMachine]:
        awake = [e for e in self._state.current.candidates if e.unavailable is None]
        for node in self._state.current.fleet.nodes:
            if node.state != "up" or node.report.sleep is None:
                continue
            used = self._last_use(node, now)
            if self._held.get(node.id, 0.0) > now:
                continue
            since = self._awake[node.id]
            yield AwakeMachine(
                id=node.id,
                name=node.name,
                idle=now - max(used, since),
                awake=now - since,
                boot=self.waker.boots.get(node.id, 0.0),
                watts=node.report.hardware.power.idle,
                needed=needed(node, awake, self.least),
            )

    def _last_use(self, node: Node, now: float) -> float:
        """Return when an engine of a node last had a request, of any balancer."""
        keys = [(node.id, each.id) for each in node.report.engines]
        if any(self._state.slot_counts.busy(key) for key in keys):
            self._used[node.id] = now
        worked = self._state.predictive.fleet_model.worked_at
        return max((self._used.get(node.id, 0.0), *map(worked, keys)))

    async def _ordered(self, node: Node, why: str) -> None:
        """Tell a node to let its machine sleep; a refusal is not an error."""
        try:
            await self.order_sleep(node, why)
        except EdgeserveError as error:
            self._say(f"{node.name} does not sleep: {error}")

    async def order_sleep(self, node: Node, why: str, *, now: bool = False) -> Sleep:
        """Tell a node to let its machine sleep. Raises OrderRefused, NodeLost."""
        if is_own(node.origin.host):
            raise BadRequest(f"{node.name} is this balancer's own machine")
        body = encode(SleepOrder(by=self._nodes.id, why=why, now=now))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                order = self._nodes.order(node.origin, SLEEP, body)
                sleep = await told(order, node.name, Sleep)
        except TimeoutError as error:
            raise NodeLost(f"{node.name} does not answer") from error
        self.waker.ours.add(node.id)
        await self._shown_asleep(node.id)
        await self._kept.keep(self._now)
        return sleep

    async def _shown_asleep(self, id_: str) -> None:
        """Wait a moment until the node's report says that it sleeps."""
        current = self._state.current
        with suppress(TimeoutError):
            async with asyncio.timeout(NEWS_SECONDS):
                while (node := current.fleet.node(id_)) and node.state != "asleep":
                    await current.changed()

    def _say(self, line: str) -> None:
        self._state.current.say(line)

    def _now(self) -> Kept:
        """Return what is to be kept."""
        fleet = self._state.current.fleet
        asleep = [
            Sleeper(
                key=address.key,
                source=SOURCES.get(address.source, "static"),
                origins=address.origins,
                origin=address.last_report.origin,
                report=address.last_report.report,
                ours=address.last_report.report.id in self.waker.ours,
            )
            for address in fleet.addresses.values()
            if address.asleep and address.last_report is not None
        ]
        return Kept(asleep=tuple(asleep), boots=dict(self.waker.boots))
