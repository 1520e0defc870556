"""EdgeServe's policy with watts: the balancer's own rules for energy and for sleep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from balancer.energy.sleep import AwakeMachine, to_sleep
from balancer.energy.wake import (
    FACTORS,
    Losses,
    SleepingMachine,
    lost_share,
    to_wake,
)
from balancer.fleet.engines import ASLEEP, EngineCandidate
from balancer.lifecycle.demand import Demand
from balancer.prediction.energy.choice import finder
from balancer.prediction.engine_model import EngineModel
from balancer.routing.affinity import is_worth_keeping
from balancer.routing.queued_request import QueuedRequest
from balancer.simulate.edgeserve_policy import Edge
from balancer.simulate.engine import Event
from balancer.simulate.fleets import Machine
from balancer.simulate.world import Act, Start, Wake
from balancer.telemetry.trace import Call
from edgeserve.http.types import Origin
from edgeserve.wire import EngineReport, Launch

SLEEP_WATTS = 1.5
"""What a machine takes whose memory is kept and whose network card listens."""


@dataclass(slots=True)
class Meter:
    """The joules of one machine, as its watts change."""

    watts: float
    joules: float = 0.0
    at: float = 0.0

    def change(self, watts: float, now: float) -> None:
        """Take so many watts from now on."""
        self.joules += self.watts * (now - self.at)
        self.watts, self.at = watts, now


class FrugalEdge(Edge):
    """The decision code of the balancer for a fleet whose machines take watts.

    `after`: idle seconds until a machine sleeps that has a `boot`; 0 for never.
    """

    def __init__(self, fleet: Sequence[Machine], prefer: str, after: float) -> None:
        super().__init__(fleet)
        self.dispatcher.find = finder(prefer, is_worth_keeping)
        for machine, engine in zip(fleet, self.engine_models, strict=True):
            engine.watts = machine.full - machine.idle
        self.after = after
        self.losses = Losses(FACTORS.get(prefer))
        self.meters = [Meter(machine.idle) for machine in fleet]
        self.running = [0] * len(fleet)
        self.used = [0.0] * len(fleet)
        self.woken: dict[int, float] = {}
        """When each machine comes up that was woken."""
        self.asleep = set[int]()
        self.since = [0.0] * len(fleet)
        self.wakes = 0
        self.candidates = [_candidate(machine) for machine in fleet]

    def eligible(self, request: QueuedRequest) -> Sequence[EngineModel]:
        """Return the engines that serve the model and are awake."""
        found = super().eligible(request)
        if not self.asleep:
            return found
        return [each for each in found if self.index[each.name] not in self.asleep]

    def arrive(self, call: Call, now: float) -> Sequence[Act]:
        """Queue a call, start what can start, wake what is needed."""
        return self._tended(super().arrive(call, now), now)

    def wake(self, now: float) -> Sequence[Act]:
        """Look again: machines have come up, or may sleep."""
        for engine in [each for each, at in self.woken.items() if at <= now]:
            del self.woken[engine]
            self.asleep.discard(engine)
            self.used[engine] = self.since[engine] = now
            self.meters[engine].change(self.fleet[engine].idle, now)
        acts = [*self.assign(now)]
        machine = (
            to_sleep(self._machines(now), self.after) if not self.waiting else None
        )
        if machine is not None:
            engine = self.index[machine.id]
            self.asleep.add(engine)
            self.meters[engine].change(SLEEP_WATTS, now)
            acts.append(Wake(now + 1))
        return self._tended(acts, now)

    def notice(self, event: Event, engine: int, now: float) -> Sequence[Act]:
        """Take in what a stream shows; an engine without requests takes less."""
        acts = super().notice(event, engine, now)
        if event.kind != "end":
            return acts
        self.running[engine] -= 1
        if not self.running[engine]:
            self.used[engine] = now
            self.meters[engine].change(self.fleet[engine].idle, now)
        later = [Wake(now + self.after + 0.1)] if self.after else []
        return self._tended([*acts, *later], now)

    def _tended(self, acts: Sequence[Act], now: float) -> list[Act]:
        """Note what was started; wake a machine that is needed."""
        self.losses.passed(self._rates(), now)
        for act in acts:
            if isinstance(act, Start):
                self.running[act.engine] += 1
                self.meters[act.engine].change(self.fleet[act.engine].full, now)
        more: list[Act] = []
        if self.asleep:
            sleeping = {
                self.fleet[each].name: SleepingMachine(
                    id=self.fleet[each].name,
                    name=self.fleet[each].name,
                    boot=self.fleet[each].boot,
                    waking=each in self.woken,
                )
                for each in self.asleep
            }
            demanded = [self._demand()] if self.waiting else []
            due = self.losses.due(sleeping)
            for found in (
                *to_wake(demanded, sleeping, _Wait(self, now), now),
                *([due] if due else []),
            ):
                engine = self.index[found.machine.id]
                self.woken[engine] = now + self.fleet[engine].boot
                self.meters[engine].change(self.fleet[engine].idle, now)
                self.wakes += 1
                more.append(Wake(self.woken[engine]))
        return [*acts, *more]

    def _demand(self) -> Demand:
        both = list(enumerate(self.candidates))
        return Demand(
            requests=tuple(self.waiting),
            ready=tuple(each for i, (each, _) in both if i not in self.asleep),
            pending=tuple(each for i, (_, each) in both if i in self.asleep),
        )

    def _rates(self) -> dict[str, float]:
        """Return the seconds that requests lose in a second without each machine."""
        models = self.engine_models
        return {
            self.fleet[i].name: sum(
                running * lost_share(models[j].speed.decode, models[i].speed.decode)
                for j, running in enumerate(self.running)
            )
            for i in self.asleep
        }

    def _machines(self, now: float) -> list[AwakeMachine]:
        return [
            AwakeMachine(
                id=machine.name,
                name=machine.name,
                idle=now - self.used[i],
                awake=now - self.since[i],
                boot=machine.boot,
                watts=machine.idle,
                needed="it works" if self.running[i] else "",
            )
            for i, machine in enumerate(self.fleet)
            if machine.boot and i not in self.asleep
        ]


@dataclass(frozen=True, slots=True)
class _Wait:
    """Predicts how long the last request that waits will wait."""

    policy: FrugalEdge
    now: float

    def __call__(self, demand: Demand) -> float:
        best = self.policy.dispatcher.choose(demand.requests[-1], self.now)
        return 0.0 if best is None else best.wait


def _candidate(machine: Machine) -> tuple[EngineCandidate, EngineCandidate]:
    """Return a machine's engine as the fleet shows it, awake and asleep."""
    report = EngineReport(
        id="engine",
        model=machine.model,
        variant=machine.model,
        state="ready",
        slots=machine.slots,
        context=machine.context,
        abilities=("chat",),
        kind="fake",
        launch=Launch(
            slots=machine.slots, context=machine.context, batch=machine.batch, threads=1
        ),
    )
    awake = EngineCandidate(
        node_id=machine.name, node=machine.name, origin=Origin("", 0), engine=report
    )
    asleep = EngineCandidate(
        node_id=machine.name,
        node=machine.name,
        origin=Origin("", 0),
        engine=report,
        unavailable=ASLEEP,
        temporary=True,
    )
    return awake, asleep
