"""EdgeServe's own policy in the simulator, and the oracle: the same, all-knowing."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.dispatch import Ask, Bound, Dispatch
from balancer.lane import Lane, Timings
from balancer.predict import WEIGHTS, Weights
from balancer.simulate.engine import Event, after
from balancer.simulate.fleets import Machine
from balancer.simulate.trace import Call
from balancer.simulate.world import Act, Start
from balancer.speed import (
    CALIBRATION_ANSWER,
    CALIBRATION_PROMPT,
    Learner,
    Sample,
    Speed,
)


class Edge:
    """The balancer's decision code, told what a balancer can see."""

    def __init__(
        self,
        fleet: Sequence[Machine],
        seed: int = 1,  # noqa: ARG002 - the decision has no chance in it
        weights: Weights = WEIGHTS,
        pins: bool = True,
    ) -> None:
        self.mind = Dispatch(weights)
        self.names: list[str] = []
        self.calls: dict[int, Call] = {}
        self.sent: dict[int, Bound] = {}
        for machine in fleet:
            lane = Lane(
                machine.name,
                machine.model,
                machine.slots,
                self.learner(machine),
                self.mind.holdings,
                machine.batch,
                machine.context,
                pins,
            )
            self.mind.lanes[machine.name] = lane
            self.names.append(machine.name)
        self.index = {name: i for i, name in enumerate(self.names)}

    def learner(self, machine: Machine) -> Learner:
        """A guess, put right by the calibration probe."""
        rough = Speed(1 / 200, 0.0, 1 / 20, 0.3, machine.network_ms / 1000)
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
        return Ask(call.id, call.model, call.prompt, call.client, now, call.budget)

    def arrive(self, call: Call, now: float) -> Sequence[Act]:
        """Into the waiting room, and out of it where an engine is free."""
        self.calls[call.id] = call
        self.mind.offer(self.ask(call, now), now)
        return self.assign(now)

    def assign(self, now: float) -> list[Act]:
        """What the mind wants started."""
        acts: list[Act] = []
        for send in self.mind.assign(now):
            self.sent[send.ask.id] = send
            lane = send.parts.lane
            acts.append(
                Start(
                    self.calls[send.ask.id],
                    self.index[lane.name],
                    send.job.slot if lane.pins else None,
                    send.parts.first,
                )
            )
        return acts

    def notice(self, event: Event, engine: int, now: float) -> Sequence[Act]:  # noqa: ARG002
        """Progress, first token, end: as the front would report them."""
        run = event.run
        send = self.sent[run.call.id]
        lane = send.parts.lane
        if event.kind == "began":
            lane.began(send.job, now, run.call.prompt_tokens, run.cached)
            return ()
        if event.kind == "first":
            lane.wrote(send.job, now)
            return ()
        call = run.call
        timings = Timings(
            run.cached,
            call.prompt_tokens - run.cached,
            1000 * (run.first - run.started),
            call.answer_tokens,
            1000 * (now - run.first),
        )
        self.mind.ended(send.ask, lane, send.job, now, timings)
        self.done(call, lane, send)
        del self.sent[call.id]
        return self.assign(now)

    def done(self, call: Call, lane: Lane, send: Bound) -> None:
        """Nothing more is known."""


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

    def done(self, call: Call, lane: Lane, send: Bound) -> None:
        """The answer as the client will send it back."""
        place = lane.places[send.job.slot]
        held = self.mind.holdings.held[place]
        if held is not None and call.reply.blocks:
            self.mind.holdings.put(
                place,
                type(held)(
                    after(call.prompt, call.reply), held.tokens, 0.0, held.since
                ),
            )


class _Fixed(Learner):
    """A learner that has nothing to learn."""

    def learn(self, sample: Sample) -> None:
        """Stay."""
