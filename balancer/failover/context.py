"""Request context: what was tried, what failed, what the request asks for now."""

from __future__ import annotations

import msgspec
from msgspec import structs

from balancer.composition.cascade import (
    ASKED,
    HeldResponse,
    Unsure,
    doubt,
    is_judged,
)
from balancer.composition.prospects import Prospects
from balancer.composition.routes import (
    Choice,
    Prospect,
    Routed,
    Skipped,
    against,
    choose,
)
from balancer.dialects.chat import Chat
from balancer.dialects.stream import StreamReader
from balancer.failover.resume import RefuseResume, Resume, ResumePlan, resume
from balancer.failover.splice import GROWTH, MIGRATIONS, MOST_MIGRATIONS, ResumePolicy
from balancer.fleet.engines import (
    EngineCandidate,
    EngineIncarnation,
    EngineKey,
)
from balancer.request import InferenceRequest
from balancer.response import MOST, ClientResponse, KeepAlive
from balancer.routing.decision import Decision, RoutingRequest, Wait
from balancer.telemetry.records import RequestRecord
from edgeserve.config.routes import ModelRoute, Reason
from edgeserve.errors import EdgeserveError, NodeLost
from edgeserve.http.types import Request
from edgeserve.openai import normal
from edgeserve.wire import EngineReport


class RequestContext(msgspec.Struct, eq=False):
    """One client request over all its attempts.

    `received`: as the client sent it; `request`: as it is asked now; `original`: before
    it was narrowed to one variant, which an answer that goes on needs. `tried`: engines
    that failed it; one that restarts may be asked once more. `left`: engines that it
    left for faster ones, `moves` times. `failure`: the latest failure;
    `failures`: their number since the last content. `breaks`: how often the answer
    broke off after content, `breaks_in_place` in a row without growing past
    `size_at_break`. `doubts`: errors that may be the request's own, `doubted_engines`
    where. `digest`: its hash, once an engine has died at it. `prompt_tokens`: tokens
    that the first engine read. `plan`: how the answer goes on, until that is tried.
    `routed`: which model answers, where the client names a route; `unjudged`: the
    request without what the small model of a cascade is asked for as well.
    `retry_after`: seconds after which the latest server without a slot said to come
    back.
    """

    received: Request
    request: InferenceRequest
    record: RequestRecord
    response: ClientResponse
    policy: ResumePolicy
    tried: set[EngineIncarnation] = set()
    left: set[EngineIncarnation] = set()
    moves: int = 0
    failure: EdgeserveError | None = None
    failures: int = 0
    breaks: int = 0
    breaks_in_place: int = 0
    size_at_break: int = 0
    doubts: int = 0
    doubted_engines: set[EngineKey] = set()
    digest: bytes = b""
    prompt_tokens: int | None = None
    original: InferenceRequest | None = None
    plan: ResumePlan | None = None
    routed: Routed | None = None
    unjudged: InferenceRequest | None = None
    retry_after: int | None = None
    _keep_alive: KeepAlive | None = None

    def follow(self, route: ModelRoute, prospects: Prospects) -> None:
        """Choose the model that answers a request to a route."""
        judged = route.hold_tokens > 0 and self._is_judged()
        if route.hold_tokens and not judged:
            route = structs.replace(route, models=route.models[::-1])
        self.routed = self.record.routed = Routed(route, Choice(""))
        self.choose(prospects)
        if judged and self.routed.choice.model == route.models[0]:
            self._hold(route, prospects)

    def _is_judged(self) -> bool:
        """Whether a small model's answer may be judged, see `cascade`."""
        request, routing = self.request, self.request.routing
        if request.dialect is not Chat or routing.deadline is not None:
            return False
        return routing.slots == 1 and is_judged(request.body)

    def _hold(self, route: ModelRoute, prospects: Prospects) -> None:
        """Hold the small model's answer back until it is judged."""
        small, large = route.models
        self.unjudged = plain = self.request
        edits = {**plain.edits, **ASKED}
        mode = "stream" if plain.mode == "stream" else "whole"
        self.request = structs.replace(plain, edits=edits, mode=mode)

        def judge(found: list[float]) -> None:
            self._ask_plainly()
            why = doubt(found, route.min_mean_logprob)
            asked = structs.replace(plain.routing, model=large)
            prospect = prospects.of(asked, route.full_seconds)
            if why and against(route, large, prospect) is None:
                raise Unsure(why)
            self.response.began = self.response.clock()

        self.response.reply = HeldResponse(
            self.response.reply,
            route.hold_tokens,
            judge,
            lambda: self.routed is not None and self.routed.choice.model == small,
        )

    def _ask_plainly(self) -> None:
        """Ask for no probabilities any more: not of other engines or models."""
        if (plain := self.unjudged) is not None:
            self.request = structs.replace(
                self.request, edits=plain.edits, mode=plain.mode
            )

    def unhold(self) -> None:
        """Drop what is held back of an answer."""
        if isinstance(self.response.reply, HeldResponse):
            self.response.reply = self.response.reply.reply

    def escalate(self, unsure: Unsure) -> None:
        """Have the large model of a cascade answer; the client has seen nothing."""
        routed = self.routed
        assert routed is not None  # noqa: S101 - only cascades are unsure
        self.unhold()
        self.response.began = None
        self.restart()
        self.record.attempts[-1].outcome = f"given up: it {unsure}"
        small, large = routed.route.models
        routed.passed[small] = Skipped(small, "unsure", str(unsure))
        # It was found well a moment ago; now the slot that was left may blur that.
        self._take(routed, Choice(large, tuple(routed.passed.values())))

    def choose(self, prospects: Prospects) -> bool:
        """Choose the model anew, unless the answer has begun; whether it changed."""
        routed = self.routed
        if routed is None or self.response.sent.size or self.original is not None:
            return False
        seconds = routed.route.full_seconds
        asked = structs.replace(self.request.routing, tried=frozenset(self.tried))

        def look(model: str) -> Prospect:
            return prospects.of(structs.replace(asked, model=model), seconds)

        choice, before = choose(routed.route, look, routed.passed), routed.choice.model
        if before and (choice.last or choice.model == before):
            return False
        self._take(routed, choice)
        return True

    def _take(self, routed: Routed, choice: Choice) -> None:
        self._ask_plainly()
        routed.choice = choice
        self.response.follows(routed.route.name, choice.why)
        routing = structs.replace(self.request.routing, model=choice.model)
        self.request = structs.replace(self.request, routing=routing)

    def pass_over(self, reason: Reason, why: str, prospects: Prospects) -> bool:
        """Take the next model of the route, if it allows that and another is well."""
        routed = self.routed
        if routed is None or reason not in routed.route.when:
            return False
        model = routed.choice.model
        routed.passed[model] = Skipped(model, reason, why)
        if self.choose(prospects):
            self.failures = 0
            return True
        del routed.passed[model]
        return False

    def note(self, decision: Decision) -> None:
        """Keep a decision, and show the client life if it is to wait."""
        self.record.decision = decision
        if isinstance(decision, Wait):
            self.begin_wait()

    def begin_wait(self) -> None:
        """Send comments from now on, if the client asked for a stream."""
        if self._keep_alive is None and self.request.mode == "stream":
            self._keep_alive = KeepAlive(self.response, self._why_it_waits)

    def _why_it_waits(self) -> str:
        """Name the load that it waits for, "" where it waits for something else."""
        decision = self.record.decision
        return decision.loading if isinstance(decision, Wait) else ""

    async def end_wait(self) -> None:
        """Send no more of them."""
        if self._keep_alive is not None:
            ended, self._keep_alive = self._keep_alive, None
            await ended.end()

    def broke(
        self, engine: EngineCandidate, error: NodeLost, reader: StreamReader
    ) -> None:
        """Note that the answer broke off there; narrow the request to that variant."""
        self.tried.add(engine.incarnation)
        self.failure, self.failures = error, 0
        self.breaks += 1
        size = self.response.sent.size
        grew = size - self.size_at_break >= GROWTH
        self.breaks_in_place = 1 if grew else self.breaks_in_place + 1
        self.size_at_break = size
        self._narrow(engine, reader)

    def moved(self, engine: EngineCandidate, reader: StreamReader) -> None:
        """Note that it leaves an engine that did not fail."""
        self.left.add(engine.incarnation)
        self.moves += 1
        if self.response.sent.size:
            self._narrow(engine, reader)

    def _narrow(self, engine: EngineCandidate, reader: StreamReader) -> None:
        if self.original is None:
            self.original, self.prompt_tokens = self.request, reader.prompt
            self.request = structs.replace(self.request, routing=self.routing(engine))

    def routing(self, engine: EngineCandidate) -> RoutingRequest:
        """Return what it asks for when it leaves an engine."""
        routing = self.request.routing
        if self.response.sent.size:
            model = normal(engine.engine.variant)
            resumes = routing.resumes or self.request.dialect.resumed_by()
            return structs.replace(routing, model=model, resumes=resumes)
        return routing

    @property
    def ruled_out(self) -> frozenset[EngineIncarnation]:
        """The engines that it does not go to."""
        return frozenset(self.tried | self.left)

    def allow_return(self) -> bool:
        """Allow the engines that it left, if any: the faster ones are gone."""
        left, self.left = self.left, set()
        return bool(left)

    def doubted(self) -> bool:
        """Count an error that may be the request's own; True from the second on."""
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
        sent = self.response.sent
        if self.policy == "off":
            return RefuseResume("`resume` is off")
        if self.breaks_in_place > MIGRATIONS or self.breaks > MOST_MIGRATIONS:
            return RefuseResume(f"it has gone on elsewhere {self.breaks - 1} times")
        if sent.size > MOST:
            return RefuseResume("it is too long to be remembered")
        body, route = self.request.body_of(engine.variant), self.request.route
        plan = resume(body, route, [sent.whole()], prompt_tokens=self.prompt_tokens)
        if isinstance(plan, Resume) and plan.portable is None:
            self.request = self.request.resuming("nodes")
        return plan

    @property
    def can_restart(self) -> bool:
        """Whether it may begin anew: its client has seen nothing.

        The number is limited: the request itself may be what kills the engines.
        """
        return not self.response.reply.started and self.breaks <= MOST_MIGRATIONS

    def restart(self) -> None:
        """Begin anew, on any engine."""
        self.response.sent.forget()
        self.plan = None
        self.size_at_break = 0
        if self.original is not None:
            self.request, self.original = self.original.resuming(""), None

    def widen(self) -> bool:
        """Ask for any variant again, where allowed; whether the request changed."""
        if self.original is None:
            return False
        if self.policy == "any" and self.request is not self.original:
            resumes = self.request.routing.resumes
            self.request = self.original = self.original.resuming(resumes)
            return True
        if self.can_restart:
            self.restart()
            return True
        return False
