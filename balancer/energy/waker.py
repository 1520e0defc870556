"""Waker: wakes machines for requests that wait, and learns how long they take.

Of several balancers the one that sent a machine to sleep wakes it; the others do if it
is not on its way after a moment. A magic packet too many does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from msgspec import structs

from balancer.energy.kept import Kept
from balancer.energy.wake import (
    FACTORS,
    FIRST_BOOT,
    GIVE_UP,
    GRACE,
    Attempts,
    Losses,
    SleepingMachine,
    learned,
    lost_share,
    patience,
    to_wake,
)
from balancer.energy.waking import run_command, send_packets
from balancer.fleet.engines import ASLEEP, EngineCandidate
from balancer.fleet.members import LastReport, Node
from balancer.lifecycle.demand import Demand, demands
from balancer.routing.dispatcher import LOOK
from balancer.state import BalancerState
from edgeserve.runtime.background import Tasks, declared
from edgeserve.wire import NodeReport

WAKING = declared("waking", "never")

Clock = Callable[[], float]


class Waker:
    """Attempts to wake machines. `command` is the owner's, beside the magic packet.

    `ours` are the ids of nodes that this balancer sent to sleep, `boots` the seconds
    that each machine takes to come up.
    """

    def __init__(
        self,
        state: BalancerState,
        command: str,
        prefer: str,
        tasks: Tasks,
        clock: Clock,
        kept: Kept,
    ) -> None:
        self.boots = dict(kept.boots)
        self.losses = Losses(FACTORS.get(prefer))
        self.ours = {each.report.id for each in kept.asleep if each.ours}
        self._state, self._command = state, command
        self._tasks, self._clock = tasks, clock
        self._wished: dict[str, float] = {}
        self._attempts: dict[str, Attempts] = {}
        self._problems: dict[str, str] = {}

    def look(self, now: float) -> None:
        """Wake what waiting requests need; judge what was woken."""
        sleeping = self.sleeping()
        self._wake_for_requests(sleeping, now)
        if sleeping:
            self.losses.passed(dict(self._rates(sleeping)), now)
            if (found := self.losses.due(sleeping)) is not None:
                self._begin(self._node(found.machine.id), found.why, now)
        self._repeat(now)

    def _rates(
        self, sleeping: Mapping[str, SleepingMachine]
    ) -> Iterator[tuple[str, float]]:
        """Yield the seconds that requests lose in a second without each machine."""
        there = self._state.current.candidates
        working = [each for each in there if each.unavailable is None]
        for id_ in sleeping:
            yield (
                id_,
                max(
                    (
                        self._rate(each, working)
                        for each in there
                        if each.node_id == id_ and each.unavailable == ASLEEP
                    ),
                    default=0.0,
                ),
            )

    def _rate(
        self, asleep: EngineCandidate, working: Iterable[EngineCandidate]
    ) -> float:
        models, rate = self._state.predictive.fleet_model, 0.0
        token = models.speed(asleep).decode
        for each in working:
            model = models.get(each.key)
            if model is not None and each.engine.model == asleep.engine.model:
                share = lost_share(model.speed.decode * model.scale, token)
                rate += model.load.slots * share
        return rate

    def came_up(self, node: Node, now: float) -> None:
        """Note that a machine is up, and how long that took."""
        self.ours.discard(node.id)
        self._problems.pop(node.id, None)
        attempts = self._attempts.pop(node.id, None)
        if attempts is not None and attempts.began is not None:
            seconds = now - attempts.began
            self.boots[node.id] = learned(self.boots.get(node.id), seconds)
            self._say(f"{node.name} is up, {seconds:.0f} s after it was woken")

    def sleeping(self) -> dict[str, SleepingMachine]:
        """Return the machines that sleep, by the ids of their nodes."""
        return {
            each.id: SleepingMachine(
                id=each.id,
                name=each.name,
                boot=self.boot(each),
                waking=self._attempt(each.id).began is not None,
            )
            for each in self._state.current.fleet.nodes
            if each.state == "asleep"
        }

    def boot(self, node: Node) -> float:
        """Return how many seconds a machine takes to come up."""
        return self.boots.get(node.id, FIRST_BOOT)

    def _attempt(self, id_: str) -> Attempts:
        return self._attempts.get(id_, Attempts())

    def _wake_for_requests(
        self, sleeping: Mapping[str, SleepingMachine], now: float
    ) -> None:
        if not sleeping or not self._state.queue.waiting:
            self._wished.clear()
            return
        waiting = demands(self._state.queue.requests, self._state.current.candidates)
        wait = partial(self._wait, now)
        found = {e.machine.id: e for e in to_wake(waiting, sleeping, wait, now)}
        self._wished = {id_: self._wished.get(id_, now) for id_ in found}
        for id_, each in found.items():
            grace = 0.0 if id_ in self.ours else GRACE
            if now - self._wished[id_] >= grace:
                self._begin(self._node(id_), each.why, now)

    def _wait(self, now: float, demand: Demand) -> float:
        """Predict how long the last request of a demand waits for its slot."""
        last = demand.requests[-1]
        if last.eligible is None:
            return now - demand.oldest
        best = self._state.predictive.dispatcher.choose(last, now)
        wait = now - demand.oldest if best is None else best.wait
        return wait * max(1.0, demand.count / LOOK)

    def _node(self, id_: str) -> Node:
        node = self._state.current.fleet.node(id_)
        assert node is not None  # noqa: S101 - it was found there
        return node

    def _begin(self, node: Node, why: str, now: float) -> None:
        """Wake a machine."""
        self._attempts[node.id] = self._attempt(node.id).begun(now)
        self._say(f"waking {node.name}: {why}")
        self._send(node)

    def _send(self, node: Node) -> None:
        self._tasks.start(WAKING, partial(self._sent, node), node.name)

    async def _sent(self, node: Node) -> None:
        sleep = node.report.sleep
        cards = sleep.cards if sleep else ()
        command = self._command
        problem = send_packets(cards)
        if command:
            problem = await run_command(command, node.name, cards)
        self._problems[node.id] = problem
        if problem:
            self._say(f"waking {node.name}: {problem}")

    def _repeat(self, now: float) -> None:
        """Send again what may be lost, and judge the machines that do not come up."""
        for id_, attempts in tuple(self._attempts.items()):
            node = self._state.current.fleet.node(id_)
            if node is None:
                del self._attempts[id_]
            elif attempts.failed(now, self.boot(node)):
                self._failed(node, attempts.ended_in_vain(now))
            elif attempts.due(now):
                self._attempts[id_] = attempts.repeated(now)
                self._send(node)
            elif attempts.began is None and attempts.rests <= now and node.problem:
                self._rest(node, "")  # it may be tried again

    def _failed(self, node: Node, attempts: Attempts) -> None:
        self._attempts[node.id] = attempts
        hint = self._problems.get(node.id) or (
            "is Wake-on-LAN on there, in its firmware and by `ethtool -s CARD wol g`?"
        )
        self._rest(
            node,
            "its machine sleeps and did not come up within"
            f" {patience(self.boot(node)):.0f} s after it was woken; {hint}",
        )

    def _rest(self, node: Node, unwoken: str) -> None:
        """Note that it cannot be woken for now; after many tries, that it is gone."""
        if self._attempt(node.id).vain >= GIVE_UP:
            self.gone(node)
        else:
            self._become(node, node.report, unwoken)

    def gone(self, node: Node) -> None:
        """Take a machine that sleeps for lost: it is woken no more, and forgotten."""
        self._attempts.pop(node.id, None)
        self._problems.pop(node.id, None)
        if node.report.sleep is not None:
            sleep = structs.replace(node.report.sleep, asleep=False)
            self._become(node, structs.replace(node.report, sleep=sleep), "")

    def _become(self, node: Node, report: NodeReport, unwoken: str) -> None:
        current, last_report = self._state.current, LastReport(node.origin, report)
        for key in node.addresses:
            current.become(current.fleet.rests(key, last_report, unwoken))

    def order(self, node: Node) -> float:
        """Wake a machine; return the seconds that it is likely to take."""
        if self._attempt(node.id).began is None:
            self._begin(node, "it was ordered", self._clock())
        return self.boot(node)

    def _say(self, line: str) -> None:
        self._state.current.say(line)
