"""Request context: what was tried, what failed, what the request asks for now."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from msgspec import structs

from balancer.dialects.stream import StreamReader
from balancer.failover.resume import RefuseResume, ResumePlan, resume
from balancer.failover.splice import GROWTH, MIGRATIONS, MOST_MIGRATIONS, ResumePolicy
from balancer.fleet.engines import EngineCandidate, EngineIncarnation, EngineKey
from balancer.request import InferenceRequest
from balancer.response import MOST, ClientResponse
from balancer.telemetry.records import RequestRecord
from edgeserve.errors import EdgeserveError, NodeLost
from edgeserve.http.types import Request
from edgeserve.openai import normal
from edgeserve.wire import EngineReport


@dataclass(slots=True)
class RequestContext:
    """One request.

    `tried` engines have failed it; one that starts anew may be asked once more.
    `failure` is what the last one said, `failures` how many have said so since some of
    the answer came. `breaks`: how often it broke off after content, `stalls` of them in
    a row without its growing; `reached` is how far it was then. `doubts`: how often an
    error may have been its own, and `questioned` where. `name`: its hash, once an
    engine has died at it. `prompt`: tokens that the first engine read. `whole`: what it
    asked for before only one variant could go on. `plan`: how it goes on, until that
    is tried.
    """

    request: Request
    work: InferenceRequest
    record: RequestRecord
    delivery: ClientResponse
    policy: ResumePolicy
    tried: set[EngineIncarnation] = field(default_factory=set[EngineIncarnation])
    failure: EdgeserveError | None = None
    failures: int = 0
    breaks: int = 0
    stalls: int = 0
    reached: int = 0
    doubts: int = 0
    questioned: set[EngineKey] = field(default_factory=set[EngineKey])
    name: bytes = b""
    prompt: int | None = None
    whole: InferenceRequest | None = None
    plan: ResumePlan | None = None

    def broke(
        self, engine: EngineCandidate, error: NodeLost, flow: StreamReader
    ) -> None:
        """Take in that the answer broke off there."""
        self.tried.add(engine.life)
        self.failure, self.failures = error, 0
        self.breaks += 1
        size = self.delivery.given.size
        self.stalls = 1 if size - self.reached >= GROWTH else self.stalls + 1
        self.reached = size
        if self.whole is None:
            self.whole, self.prompt = self.work, flow.prompt
            need = structs.replace(self.work.need, model=normal(engine.engine.variant))
            self.work = replace(self.work, need=need)

    def doubted(self) -> bool:
        """Count an error that may be the request's own; whether two engines said so."""
        self.doubts += 1
        return self.doubts > 1

    def resume_plan(self, engine: EngineReport) -> ResumePlan:
        """Decide how an engine goes on after what the client was given.

        It is decided once: `engine` may be another one than the one that goes on.
        """
        if self.plan is None:
            self.plan = self._planned(engine)
        return self.plan

    def _planned(self, engine: EngineReport) -> ResumePlan:
        given = self.delivery.given
        if self.policy == "off":
            return RefuseResume("`resume` is off")
        if self.stalls > MIGRATIONS or self.breaks > MOST_MIGRATIONS:
            return RefuseResume(f"it has gone on elsewhere {self.breaks - 1} times")
        if given.size > MOST:
            return RefuseResume("it is too long to be remembered")
        return resume(
            self.work.body_for(engine),
            self.work.route,
            [given.whole()],
            prompt_tokens=self.prompt,
        )

    @property
    def restarts(self) -> bool:
        """Whether it may begin anew: its client has seen nothing.

        Not for ever: it may be what kills the engines.
        """
        return not self.delivery.reply.started and self.breaks <= MOST_MIGRATIONS

    def restart(self) -> None:
        """Begin anew, on any engine."""
        self.delivery.given.forget()
        self.plan = None
        self.reached = 0
        if self.whole is not None:
            self.work, self.whole = self.whole, None

    def widened(self) -> bool:
        """Ask for less, where nobody can do what it asks for; False if it cannot."""
        if self.whole is None or self.work is self.whole:
            return False
        if self.policy == "any":
            self.work = self.whole
            return True
        if self.restarts:
            self.restart()
            return True
        return False
