"""Retry loop: ask an engine, judge the outcome, ask again or give up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from msgspec import structs

from balancer.dialects.stream import StreamReader
from balancer.discovery.node_client import NodeClient
from balancer.failover.attempt import AttemptRequest, attempted, completed
from balancer.failover.attempt_watchdog import AttemptWatchdog
from balancer.failover.conclusions import answered, condemned, died, failed, struck
from balancer.failover.context import RequestContext
from balancer.failover.outcome import (
    Again,
    AsItIs,
    Broken,
    Done,
    Elsewhere,
    Full,
    Outcome,
    begun,
    called,
)
from balancer.failover.recovery import await_recovery, reason
from balancer.failover.resume import Finish, RefuseResume, Resume, ResumePlan
from balancer.failover.splice import ResumedStream, listener
from balancer.failover.watchdog import Watchdog
from balancer.fleet.engines import EngineCandidate
from balancer.probes.template import TemplateProbe
from balancer.response import KeepAlive
from balancer.routing.decision import Send
from balancer.routing.queued_request import RETRY_AFTER
from balancer.state import BalancerState
from edgeserve.errors import FleetBusy, NodeLost, NoNode, NotReached, UnknownModel

TEMPLATE_REFUSES = "the model's chat template refuses to continue a message"


@dataclass(frozen=True, kw_only=True)
class RetryLoop:
    """Tries engines for one request until one answers, or none is left."""

    state: BalancerState
    nodes: NodeClient
    templates: TemplateProbe
    watch: Watchdog
    attempts: int
    patience: float

    async def run(self, task: RequestContext) -> None:
        """Try engines until one answers. Each is tried once in its life."""
        while not isinstance(outcome := await self._once(task), Done):
            await condemned(self.state, task)
            self._go_on(task, outcome)
        if outcome.left is not None:
            raise asyncio.CancelledError  # that one would hold this frame, and be held

    def _go_on(self, task: RequestContext, outcome: Outcome) -> None:
        """Get ready to ask again; raises why not, where it is over."""
        match outcome:
            case AsItIs():
                task.work = task.work.as_it_is()
            case Broken(final=True) if task.restarts:
                task.restart()
            case Broken(error, final=True):
                raise error
            case Elsewhere(error) if task.failures >= self.attempts:
                raise error
            case Elsewhere(error, fault="doubt") if task.doubted():
                raise error
            case Full() if task.record.waited >= self.patience:
                raise FleetBusy(RETRY_AFTER, "its nodes have no slot after all")
            case _:
                pass

    async def _once(self, task: RequestContext) -> Outcome:
        need = task.work.need
        if task.tried:
            need = structs.replace(need, tried=frozenset(task.tried))
        clock, record = self.state.records.clock, task.record
        asked = clock()
        lull = KeepAlive(task.delivery, record.note, streams=task.work.mode == "stream")
        try:
            async with self.state.queue.claim(need, lull.note) as send:
                if lull.begun:
                    await lull.end()
                record.waited += clock() - asked
                attempt = begun(send, clock(), task)
                try:
                    outcome = await self._budgeted(task, send)
                    attempt.outcome = called(outcome)
                finally:
                    attempt.ended = clock()
                return await self._followed(task, send.to, outcome)
        except (NoNode, UnknownModel) as refusal:
            lull.begin()
            if await await_recovery(self.state.current, task):
                return Again()
            # Those that are left cannot, and one that was tried has said why.
            if task.failure:
                raise reason(self.state.current, task.failure, task, refusal) from None
            raise
        finally:
            if lull.begun:
                await lull.end()

    async def _budgeted(self, task: RequestContext, send: Send) -> Outcome:
        """Count what is asked again, which bounds how much else may be."""
        if not task.tried:
            return await self._asked(task, send)
        with self.watch.budget.another():
            return await self._asked(task, send)

    async def _asked(self, task: RequestContext, send: Send) -> Outcome:
        to, work, delivery = send.to, task.work, task.delivery
        flow: StreamReader = listener(work, task.record.id, to.engine.variant)
        body = work.body_for(to.engine, send.course.slot)
        if delivery.given.size:
            plan = await self._plan(task, to)
            if not isinstance(plan, Resume):
                return await _without_engine(task, plan)
            body = plan.body_for(to.engine.variant)
            flow = ResumedStream(plan.splice)
        known = struck(self.state, task)
        if known:
            await self.watch.apart(to.key)
        delivery.comes_from(to.node, to.engine.variant)
        watchdog = AttemptWatchdog(
            prospects=self.watch,
            key=to.key,
            need=work.need,
            started=self.watch.time(),
            predicted=send.course.first_seconds,
            tells=work.tells_us,
            halting=b'"tools"' in work.body,
            paused=delivery.paused,
            struck=known,
        )
        question = AttemptRequest(
            to=to,
            request=task.request,
            request_id=task.record.id,
            body=body,
            flow=flow,
            watchdog=watchdog,
            course=send.course,
        )
        self.watch.keep(watchdog)
        try:
            outcome = await attempted(self.nodes, question, work, delivery)
        finally:
            self.watch.end(watchdog)
        died(self.state, self.watch, task, watchdog, to, outcome)
        if isinstance(outcome, Broken) and not outcome.final:
            task.broke(to, outcome.error, flow)
        return outcome

    async def _plan(self, task: RequestContext, to: EngineCandidate) -> ResumePlan:
        """Return how `to` goes on with the answer. A splice serves one attempt."""
        plan, task.plan = task.resume_plan(to.engine), None
        if not isinstance(plan, Resume) or not plan.continues:
            return plan
        if await self.templates.refuses(to, task.work.dialect):
            return RefuseResume(TEMPLATE_REFUSES)
        return plan

    async def _followed(
        self, task: RequestContext, to: EngineCandidate, outcome: Outcome
    ) -> Outcome:
        """Draw conclusions from an attempt; a broken answer may lack but its end."""
        fleet, now = self.state.current.fleet, self.state.records.clock()
        match outcome:
            case Full():
                task.delivery.attempts -= 1
                self.state.current.become(fleet.turned_away(*to.key))
            case Elsewhere(error, fault, longer):
                task.tried.add(to.life)
                task.failure = error
                task.failures += 1
                if longer:
                    task.work = task.work.longer(to.engine.context)
                failed(self.state.breakers, task, to, error, fault)
                if isinstance(error, NotReached):
                    self.state.current.become(fleet.failed(to.member, str(error), now))
            case Done(outcome="answered"):
                answered(self.state, task, to)
            case Broken(error, fault, final=False):
                failed(self.state.breakers, task, to, error, fault)
                plan = task.resume_plan(to.engine)
                if not isinstance(plan, Resume):
                    return await _without_engine(task, plan)
            case _:
                pass
        return outcome


async def _without_engine(task: RequestContext, plan: Finish | RefuseResume) -> Outcome:
    """End an answer that needs no engine, or give up one that no engine can end."""
    match plan:
        case Finish(tail):
            return await completed(tail, task.work, task.delivery)
        case RefuseResume(reason):
            why = f"{task.failure}; no other node can go on: {reason}"
            return Broken(NodeLost(why), final=True)
