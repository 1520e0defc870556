"""EdgeServe's own policy in the simulator, and the oracle: the same, all-knowing."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.dispatch import Bound, Dispatch
from balancer.hostcache import HostCache
from balancer.lane import Lane, Timings
from balancer.learner import Learner
from balancer.question import Ask
from balancer.simulate.cache import answered
from balancer.simulate.engine import Event, Run
from balancer.simulate.fleets import Machine
from balancer.simulate.trace import Call
from balancer.simulate.world import Act, Start, Turn
from balancer.speed import CALIBRATION_ANSWER, CALIBRATION_PROMPT, Sample, Speed
from balancer.weights import WEIGHTS, Weights


class Edge:
    """The balancer's decision code, told what a balancer can see."""

    def __init__(
        self,
        fleet: Sequence[Machine],
        weights: Weights = WEIGHTS,
        pins: bool = True,
        room: int = 100_000,
    ) -> None:
        self.mind = Dispatch(self.eligible, room)
        self.calls: dict[Ask, Call] = {}
        self.bound: dict[int, Bound] = {}
        self.index = {machine.name: i for i, machine in enumerate(fleet)}
        self.lanes = [self.lane(machine, weights, pins) for machine in fleet]
        self.fleet = fleet
        self.able = dict[str, list[Lane]]()

    def lane(self, machine: Machine, weights: Weights, pins: bool) -> Lane:
        """One machine, as the balancer sees it after calibration."""
        host = None
        if machine.cache_tokens:
            host = HostCache(self.mind.holdings, machine.cache_tokens)
        return Lane(
            machine.name,
            machine.model,
            machine.slots,
            self.learner(machine),
            self.mind.holdings,
            machine.batch,
            machine.context,
            pins and host is None,
            host,
            weights=weights,
        )

    def eligible(self, ask: Ask) -> Sequence[Lane]:
        """Who serves the model."""
        if ask.model not in self.able:
            pairs = zip(self.fleet, self.lanes, strict=True)
            able = (lane for machine, lane in pairs if machine.serves(ask.model))
            self.able[ask.model] = sorted(able, key=lambda lane: lane.per_read)
        return self.able[ask.model]

    def learner(self, machine: Machine) -> Learner:
        """A poor guess, put right by the calibration probe."""
        rough = Speed(1 / 200, 1e-7, 1 / 20, 0.3, machine.network_ms / 1000)
        learner = Learner(rough)
        speed = machine.speed
        learner.learn(
            Sample(
                0,
                CALIBRATION_PROMPT,
                1000 * speed.prefill_seconds(CALIBRATION_PROMPT, 0),
                CALIBRATION_ANSWER,
                1000 * speed.token_seconds(1) * (CALIBRATION_ANSWER - 1),
            )
        )
        return learner

    def ask(self, call: Call, now: float) -> Ask:
        """What a balancer can see of a call."""
        return Ask(call.model, call.prompt, call.client, now, call.budget)

    def arrive(self, call: Call, now: float) -> Sequence[Act]:
        """Into the waiting room, and out of it where an engine is free."""
        ask = self.ask(call, now)
        turned = self.mind.offer(ask, now)
        if turned is not None:
            return (Turn(call, turned.retry_after),)
        self.calls[ask] = call
        return self.assign(now)

    def assign(self, now: float) -> list[Act]:
        """What is to start now."""
        acts: list[Act] = []
        for bound in self.mind.assign(now):
            call = self.calls.pop(bound.ask)
            self.bound[call.id] = bound
            engine = self.index[bound.lane.name]
            slot = bound.job.slot if bound.lane.pins else None
            acts.append(Start(call, engine, slot, bound.parts.first))
        return acts

    def notice(self, event: Event, engine: int, now: float) -> Sequence[Act]:  # noqa: ARG002
        """Progress, first token, end: as the wire shows them."""
        run = event.run
        bound = self.bound[run.call.id]
        match event.kind:
            case "began":
                self.mind.began(bound, now, run.call.prompt_tokens, run.cached)
                return ()
            case "first":
                bound.lane.wrote(bound.job, now)
                return ()
            case _:
                self.mind.ended(bound, now, timings(run, now))
                self.learned(run.call, bound)
                del self.bound[run.call.id]
                return self.assign(now)

    def learned(self, call: Call, bound: Bound) -> None:
        """Nothing more than that."""


def timings(run: Run, now: float) -> Timings:
    """What llama.cpp would report."""
    return Timings(
        run.cached,
        run.call.prompt_tokens - run.cached,
        1000 * (run.first - run.started),
        run.call.answer_tokens,
        1000 * (now - run.first),
    )


class Oracle(Edge):
    """Knows every rate, every length and every slot's true content."""

    def learner(self, machine: Machine) -> Learner:
        """The truth, and nothing can change it."""
        return _Fixed(machine.speed)

    def ask(self, call: Call, now: float) -> Ask:
        """With the true lengths."""
        ask = Edge.ask(self, call, now)
        ask.tokens, ask.answer = float(call.prompt_tokens), float(call.answer_tokens)
        return ask

    def learned(self, call: Call, bound: Bound) -> None:
        """The answer as the client will send it back."""
        place = bound.lane.places[bound.job.slot]
        held = self.mind.holdings.held[place]
        if held is not None and call.reply.blocks:
            whole = type(held)(
                answered(call).prompt, held.tokens, 0.0, held.since, held.used
            )
            self.mind.holdings.put(place, whole)


class _Fixed(Learner):
    """A learner that has nothing to learn."""

    def learn(self, sample: Sample) -> None:
        """Stay."""
