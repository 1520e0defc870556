"""EdgeServe's policy in the simulator, and an oracle with perfect knowledge."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.dialects.timings import Timings
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.learning import SpeedLearner
from balancer.prediction.prefix_cache import HostCache
from balancer.prediction.speed import (
    CALIBRATION_ANSWER,
    CALIBRATION_PROMPT,
    Sample,
    Speed,
)
from balancer.queue import RECONSIDER_SECONDS
from balancer.routing.decision import RoutingRequest
from balancer.routing.dispatcher import Assignment, Dispatcher
from balancer.routing.queued_request import QueuedRequest, ignore
from balancer.simulate.cache import answered
from balancer.simulate.engine import Event, Run
from balancer.simulate.fleets import Machine
from balancer.simulate.world import Act, Decline, Start, Wake
from balancer.telemetry.trace import Call


class Edge:
    """The decision code of the balancer, with what a balancer can observe."""

    def __init__(
        self, fleet: Sequence[Machine], pins: bool = True, queue: int = 100_000
    ) -> None:
        self.dispatcher = Dispatcher(self.eligible)
        self.queue = queue
        self.waiting: dict[QueuedRequest, Call] = {}
        self.assignments: dict[int, Assignment] = {}
        self.index = {machine.name: i for i, machine in enumerate(fleet)}
        self.engine_models = [self.engine_model(machine, pins) for machine in fleet]
        self.fleet = fleet
        self.engines_by_model = dict[str, list[EngineModel]]()
        self.wakes_at = -1.0

    def engine_model(self, machine: Machine, pins: bool) -> EngineModel:
        """Return a machine as the balancer knows it after calibration."""
        host = None
        if machine.cache_tokens:
            host = HostCache(self.dispatcher.cache_index, machine.cache_tokens)
        return EngineModel(
            name=machine.name,
            model=machine.model,
            slots=machine.slots,
            learner=self.learner(machine),
            cache_index=self.dispatcher.cache_index,
            batch=machine.batch,
            context=machine.context,
            pins=pins and host is None,
            host=host,
        )

    def eligible(self, request: QueuedRequest) -> Sequence[EngineModel]:
        """Return the engines that serve the model."""
        model = request.model
        if model not in self.engines_by_model:
            pairs = zip(self.fleet, self.engine_models, strict=True)
            able = [engine for machine, engine in pairs if machine.serves(model)]
            self.engines_by_model[model] = sorted(able, key=lambda each: each.per_read)
        return self.engines_by_model[model]

    def learner(self, machine: Machine) -> SpeedLearner:
        """Return a rough guess, corrected by the calibration probe."""
        rough = Speed(
            prefill=1 / 200,
            attention=1e-7,
            decode=1 / 20,
            slowdown=0.3,
            overhead=machine.network_ms / 1000,
        )
        learner = SpeedLearner(rough)
        speed = machine.speed
        learner.learn(
            Sample(
                cached=0,
                prompt=CALIBRATION_PROMPT,
                prompt_ms=1000 * speed.prefill_seconds(CALIBRATION_PROMPT, 0),
                predicted=CALIBRATION_ANSWER,
                predicted_ms=1000 * speed.token_seconds(1) * (CALIBRATION_ANSWER - 1),
            )
        )
        return learner

    def request(self, call: Call, now: float) -> QueuedRequest:
        """Return what a balancer can observe of a call."""
        routing = RoutingRequest(
            model=call.model,
            ability="chat",
            prompt=call.prompt,
            client=call.client,
            budget=call.budget,
        )
        return QueuedRequest(routing, ignore, now)

    def arrive(self, call: Call, now: float) -> Sequence[Act]:
        """Queue a call, and start what can start."""
        request, full = self.request(call, now), len(self.waiting) >= self.queue
        if self.dispatcher.offer(request, now, full=full) is not None:
            return (Decline(call),)
        self.waiting[request] = call
        return self.assign(now)

    def assign(self, now: float) -> list[Act]:
        """Start the calls that should start now."""
        acts: list[Act] = []
        for assignment in self.dispatcher.assign(self.waiting, now):
            call = self.waiting.pop(assignment.request)
            self.assignments[call.id] = assignment
            engine = self.index[assignment.engine.name]
            slot = assignment.slot if assignment.engine.pins else None
            acts.append(Start(call, engine, slot, assignment.estimate.first))
        if self.waiting and self.wakes_at <= now:
            self.wakes_at = now + RECONSIDER_SECONDS
            acts.append(Wake(self.wakes_at))
        return acts

    def wake(self, now: float) -> Sequence[Act]:
        """Look at the queue again: predictions age."""
        return self.assign(now)

    def notice(self, event: Event, engine: int, now: float) -> Sequence[Act]:  # noqa: ARG002
        """Take in progress, first token or end, as a stream shows them."""
        run = event.run
        assignment = self.assignments[run.call.id]
        match event.kind:
            case "began":
                tokens = run.call.prompt_tokens
                self.dispatcher.began(assignment, now, tokens, run.cached)
            case "progress":
                assignment.engine.progressed(assignment, now, run.processed)
            case "first":
                assignment.engine.wrote(assignment, now)
            case _:
                self.dispatcher.ended(assignment, now, timings(run, now))
                self.learned(run.call, assignment)
                del self.assignments[run.call.id]
                return self.assign(now)
        return ()

    def learned(self, call: Call, assignment: Assignment) -> None:
        """Do nothing more; the oracle does."""


def timings(run: Run, now: float) -> Timings:
    """Return what llama.cpp would report."""
    return Timings(
        run.cached,
        run.call.prompt_tokens - run.cached,
        1000 * (run.first - run.began),
        run.call.answer_tokens,
        1000 * (now - run.first),
    )


class Oracle(Edge):
    """Knows every rate, every length and the true content of every slot."""

    def learner(self, machine: Machine) -> SpeedLearner:
        """Return the true speed, which never changes."""
        return _Fixed(machine.speed)

    def request(self, call: Call, now: float) -> QueuedRequest:
        """Add the true lengths."""
        request = Edge.request(self, call, now)
        request.tokens = float(call.prompt_tokens)
        request.answer = float(call.answer_tokens)
        return request

    def learned(self, call: Call, assignment: Assignment) -> None:
        """Store the answer as the client will send it back."""
        place = assignment.engine.places[assignment.slot]
        content = self.dispatcher.cache_index.contents[place]
        if content is not None and call.reply.blocks:
            whole = type(content)(
                answered(call).prompt, content.tokens, 0.0, content.since, content.used
            )
            self.dispatcher.cache_index.put(place, whole)


class _Fixed(SpeedLearner):
    """A learner that never changes."""

    def learn(self, sample: Sample) -> None:
        """Ignore the sample."""
