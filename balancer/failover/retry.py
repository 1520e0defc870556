"""Retry loop: ask an engine, judge the outcome, ask again or give up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from msgspec import structs

from balancer.caches.mover import CacheMover
from balancer.dialects.stream import StreamReader
from balancer.discovery.node_client import NodeClient
from balancer.failover.attempt import note_taken, run_attempt, send_tail
from balancer.failover.conclusions import (
    is_suspect,
    note_answer,
    note_death,
    note_failure,
    refuse_poison,
)
from balancer.failover.context import RequestContext
from balancer.failover.outcome import (
    AskWhole,
    Broken,
    Done,
    Elsewhere,
    Full,
    Moved,
    Outcome,
    Rerouted,
    described,
    open_attempt,
)
from balancer.failover.recovery import await_recovery, final_error
from balancer.failover.resume import (
    Finish,
    RefuseResume,
    Resume,
    ResumePlan,
    is_foreign,
)
from balancer.failover.splice import reader_for, server_reader
from balancer.failover.watchdog import AttemptWatchdog, Watchdog
from balancer.fleet.engines import EngineCandidate
from balancer.probes.continuation import ContinuationProbe
from balancer.probes.template import TemplateProbe
from balancer.routing.decision import RoutingRequest, Send
from balancer.routing.queued_request import RETRY_AFTER
from balancer.state import BalancerState
from balancer.telemetry.records import SlotWait
from edgeserve.errors import (
    EdgeserveError,
    FleetBusy,
    NodeLost,
    NoNode,
    NotReached,
    TooLate,
    UnknownModel,
)

TEMPLATE_REFUSES = "the model's chat template refuses to continue a message"


@dataclass(frozen=True, kw_only=True)
class RetryLoop:
    """Tries engines for one request until one answers, or none is left.

    `attempts`: failures in a row that end it. `patience`: most seconds in the queue.
    """

    state: BalancerState
    nodes: NodeClient
    templates: TemplateProbe
    continuations: ContinuationProbe
    watchdog: Watchdog
    caches: CacheMover
    attempts: int
    patience: float

    async def run(self, context: RequestContext) -> None:
        """Try engines until one answers, each engine once until it restarts."""
        while not isinstance(outcome := await self._try(context), Done):
            await refuse_poison(self.state, context)
            self._prepare(context, outcome)
        if outcome.left is not None:
            # `outcome.left` itself would hold this frame, and be held by it.
            raise asyncio.CancelledError

    def _prepare(self, context: RequestContext, outcome: Outcome) -> None:
        """Prepare the next attempt; raises where there is to be none."""
        match outcome:
            case AskWhole():
                context.request = context.request.not_streamed()
            case Broken(final=True) if context.can_restart:
                context.restart()
            case Broken(error, final=True):
                raise error
            case Elsewhere(error) if context.failures >= self.attempts:
                if not self._takes_next_model(context, error):
                    raise error
            case Elsewhere(error, fault="doubt") if context.doubted():
                raise error
            case Full(after) if context.record.waited >= self.patience:
                raise FleetBusy(
                    after or RETRY_AFTER, "its nodes have no slot after all"
                )
            case _:
                pass

    async def _try(self, context: RequestContext) -> Outcome:
        """Wait for a slot and make one attempt."""
        needs = self._needs(context)
        try:
            claim = self.state.queue.claim(needs, context.note)
            with SlotWait(context.record, self.state.records.clock) as wait:
                async with claim as send:
                    wait.end()
                    await context.end_wait()
                    outcome = await self._recorded(context, send)
                    claim.abandons = isinstance(outcome, Moved)
                    return await self._conclude(context, send.to, outcome)
        except TooLate as error:
            error.retry_after = context.retry_after
            raise
        except (NoNode, UnknownModel) as refusal:
            if context.allow_return() or self._takes_next_model(context, refusal):
                return Rerouted()
            context.begin_wait()
            if await await_recovery(self.state.current, context):
                return Rerouted()
            raise final_error(self.state.current, context, refusal) from None
        except FleetBusy as busy:
            if self._takes_next_model(context, busy):
                return Rerouted()
            raise
        finally:
            await context.end_wait()

    def _needs(self, context: RequestContext) -> RoutingRequest:
        """Return what the next attempt needs of an engine."""
        if context.tried or context.left:
            context.choose(self.state.prospects)
        elif not context.record.attempts:
            return context.request.routing
        routing = context.request.routing
        return structs.replace(routing, tried=context.ruled_out, again=True)

    def _takes_next_model(self, context: RequestContext, error: EdgeserveError) -> bool:
        """Whether a request to a route goes on to another of its models."""
        if isinstance(error, FleetBusy):
            why = f"is full: {error.why}"
            return context.pass_over("full", why, self.state.prospects)
        if context.request.routing.too_short:
            why = "has no context that is long enough"
            return context.pass_over("too-long", why, self.state.prospects)
        why = "is away: its engines failed this request"
        return context.pass_over("away", why, self.state.prospects)

    def _note_too_long(
        self, context: RequestContext, to: EngineCandidate, error: EdgeserveError
    ) -> int:
        """Return the context that was too short; remember that of a server."""
        if to.engine.served is None:
            return to.engine.context
        tokens, told = context.request.routing.tokens, error.envelope().get("n_ctx")
        named = told if isinstance(told, int) else 0
        knowledge = self.state.predictive.fleet_model.servers
        knowledge.refused(to.key, tokens, named)
        return to.engine.context or named or tokens

    def _note_full(self, to: EngineCandidate) -> None:
        """Let a server have fewer requests at once, where its width is unknown."""
        known = self.state.predictive.fleet_model.servers.of(to.key).width
        if known is not None and to.engine.served and to.engine.served.learns_width:
            known.refused(self.state.slot_counts.busy(to.key))

    async def _recorded(self, context: RequestContext, send: Send) -> Outcome:
        """Make an attempt, with its record and its place in the retry budget."""
        clock = self.state.records.clock
        attempt = open_attempt(send, clock(), context)
        try:
            if context.tried or context.left:
                with self.watchdog.budget.another():
                    outcome = await self._ask(context, send)
            else:
                outcome = await self._ask(context, send)
            attempt.outcome = described(outcome)
        finally:
            attempt.ended = clock()
        return outcome

    async def _ask(self, context: RequestContext, send: Send) -> Outcome:
        """Ask one engine, for all of the answer or for the rest of it."""
        to, request = send.to, context.request
        await self.caches.prepare(send)
        reader: StreamReader
        if context.response.sent.size:
            plan = await self._plan(context, to)
            if not isinstance(plan, Resume):
                return await _without_engine(context, plan)
            body = plan.body_for(to.engine)
            reader = plan.reader_for(send, to.engine)
        else:
            body = request.body_for(to.engine, send.slot)
            id_, variant = context.record.id, to.engine.variant
            reader = reader_for(request, id_, variant, send)
            if is_foreign(to.engine):
                reader = server_reader(request, send)
        suspect = is_suspect(self.state, context)
        if suspect:
            await self.watchdog.wait_apart(to.key)
        context.response.comes_from(to.node, to.engine.variant)
        watchdog = self._attempt_watchdog(context, send, suspect=suspect)
        outcome = await self._watched(context, send, body, reader, watchdog)
        self.caches.judge(send)
        if isinstance(outcome, Broken) and not outcome.final:
            context.broke(to, outcome.error, reader)
        elif isinstance(outcome, Moved):
            context.moved(to, reader)
        return outcome

    async def _plan(self, context: RequestContext, to: EngineCandidate) -> ResumePlan:
        """Return how `to` goes on with the answer. A splice serves one attempt."""
        plan, context.plan = context.resume_plan(to.engine), None
        if not isinstance(plan, Resume) or not plan.continues:
            return plan
        if to.engine.kind == "server":
            return plan  # it goes to those only that were seen to go on
        if await self.templates.refuses(to, context.request.dialect):
            return RefuseResume(TEMPLATE_REFUSES)
        return plan

    def _attempt_watchdog(
        self, context: RequestContext, send: Send, *, suspect: bool
    ) -> AttemptWatchdog:
        request, of_server = context.request, send.to.engine.kind == "server"
        return AttemptWatchdog(
            watchdog=self.watchdog,
            key=send.to.key,
            send=send,
            context=context,
            routing=request.routing,
            started=self.watchdog.time(),
            predicted=send.first_seconds,
            reports_progress=request.asks_for_progress and not of_server,
            # A server may read another's whole prompt before it writes on.
            may_pause=of_server or b'"tools"' in request.body,
            paused=context.response.paused,
            suspect=suspect,
        )

    async def _watched(
        self,
        context: RequestContext,
        send: Send,
        body: bytes,
        reader: StreamReader,
        watchdog: AttemptWatchdog,
    ) -> Outcome:
        self.watchdog.watch(watchdog)
        try:
            outcome = await run_attempt(
                self.nodes, context, send, body=body, reader=reader, watchdog=watchdog
            )
        finally:
            self.watchdog.end(watchdog)
            note_taken(context, reader, watchdog)
        note_death(self.state, self.watchdog, context, watchdog, send.to, outcome)
        return outcome

    def _note_answer(self, context: RequestContext, to: EngineCandidate) -> None:
        note_answer(self.state, context, to)
        if to.engine.kind == "server":
            self.continuations.answered(to, context.request.dialect)

    async def _conclude(
        self, context: RequestContext, to: EngineCandidate, outcome: Outcome
    ) -> Outcome:
        """Draw conclusions from an attempt; end a broken answer that lacks no text."""
        fleet, now = self.state.current.fleet, self.state.records.clock()
        match outcome:
            case Full(after):
                context.response.attempts -= 1
                context.retry_after = after
                self._note_full(to)
                self.state.current.become(fleet.turned_away(*to.key))
                context.choose(self.state.prospects)
            case Elsewhere(error, fault, longer_context):
                context.tried.add(to.incarnation)
                context.failure = error
                context.failures += 1
                if longer_context:
                    than = self._note_too_long(context, to, error)
                    context.request = context.request.for_longer_context(than)
                note_failure(self.state.breakers, context, to, error, fault)
                if isinstance(error, NotReached):
                    self.state.current.become(fleet.failed(to.node_id, str(error), now))
            case Done(outcome="answered"):
                self._note_answer(context, to)
            case Broken(error, fault, final=False):
                note_failure(self.state.breakers, context, to, error, fault)
                plan = context.resume_plan(to.engine)
                if not isinstance(plan, Resume):
                    return await _without_engine(context, plan)
            case _:
                pass
        return outcome


async def _without_engine(
    context: RequestContext, plan: Finish | RefuseResume
) -> Outcome:
    """End an answer that needs no engine, or give up one that no engine can end."""
    match plan:
        case Finish(tail):
            return await send_tail(tail, context)
        case RefuseResume(reason):
            why = f"{context.failure}; no other node can go on: {reason}"
            return Broken(NodeLost(why), final=True)
