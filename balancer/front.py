"""Inference requests: read one, ask for a decision, carry the answer, try again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from msgspec import structs

from balancer.account import begun, called
from balancer.attempt import (
    Again,
    AsItIs,
    Broken,
    Done,
    Elsewhere,
    Full,
    Outcome,
    Question,
    attempted,
    completed,
)
from balancer.candidates import Candidate
from balancer.conclusions import answered, condemned, died, failed, struck
from balancer.delivery import Delivery
from balancer.desk import Desk
from balancer.headed import listener
from balancer.hope import otherwise, reason
from balancer.lull import Lull
from balancer.mending import Mended, Policy
from balancer.queued import RETRY_AFTER
from balancer.record import Record
from balancer.request import (
    Caller,
    deadline_seconds,
    headers_for,
    request_id,
    session_of,
    understood,
)
from balancer.resume import Finish, Refuse, Resume
from balancer.schedule import Send
from balancer.stream import Flow
from balancer.task import Task
from balancer.templates import Templates
from balancer.tracing import Trace
from balancer.vigil import Vigil
from balancer.watchdog import Watch
from edgeserve.auth import Guard
from edgeserve.errors import (
    EdgeserveError,
    FleetBusy,
    NodeLost,
    NoNode,
    NotReached,
    TooLate,
    UnknownModel,
    WrongMethod,
    untie,
)
from edgeserve.openai import ROUTES, asking
from edgeserve.quality import floor_asked
from edgeserve.relay.exchange import Reply, Request
from edgeserve.relay.upstream import Upstream

LEFT = "the client left"


def handled(path: str) -> bool:
    """Whether an engine answers that path."""
    return path in ROUTES


@dataclass(frozen=True, kw_only=True)
class Front:
    """The handler of every route that reaches an engine."""

    desk: Desk
    upstream: Upstream
    guard: Guard
    token: str | None
    templates: Templates
    watch: Watch
    policy: Policy
    attempts: int
    patience: float
    trace: Trace | None = None

    async def __call__(self, request: Request, reply: Reply) -> None:
        """Answer one request. Cancelling it closes the node's connection at once."""
        record = self.desk.records.open(
            request_id(request.headers), request.path, request.peer
        )
        clock = self.desk.records.clock
        delivery = Delivery(reply, record.id, request.path, clock)
        try:
            await self._admitted(request, record, delivery)
        except EdgeserveError as error:
            record.outcome = error.code
            await _told(error, request, delivery)
            untie(error)
        except (ConnectionError, asyncio.CancelledError) as error:
            record.outcome = None if record.answered else LEFT
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._close(record, delivery)

    def _close(self, record: Record, delivery: Delivery) -> None:
        record.status = delivery.status or None
        if record.outcome is None and record.attempts:
            record.outcome = record.attempts[-1].outcome
        record.ended = self.desk.records.clock()
        record.first_byte = delivery.began
        self.desk.metrics.answered(record)

    async def _admitted(
        self, request: Request, record: Record, delivery: Delivery
    ) -> None:
        shown = self.guard.check(request.headers)
        route, key = ROUTES[request.path], self.desk.key
        if request.method != route.method:
            raise WrongMethod(request.method, request.path, [route.method])
        with self.desk.doorkeeper:
            seconds = deadline_seconds(request.headers)
            caller = Caller(
                shown or request.peer,
                session_of(request.headers),
                None if seconds is None else record.arrived + seconds,
                floor_asked(request.headers),
            )
            body = asking(route, request.query, request.body)
            work = understood(route, body, caller, key, self.desk.caps)
            record.model, record.stream = work.need.model, work.mode == "stream"
            task = Task(request, work, record, delivery, self.policy)
            struck(self.desk, task)
            await self._in_time(task, seconds)
            if self.trace:
                self.trace.answered(record, work.need, self.desk.records.clock())

    async def _in_time(self, task: Task, seconds: float | None) -> None:
        """Let the caller's deadline count until the answer begins.

        A refusal is answered after this block, when there is no deadline left to lift.
        """
        if seconds is None:
            await self._tried(task)
            return
        limit = asyncio.timeout(seconds)
        task.delivery.on_begin = partial(limit.reschedule, None)
        try:
            async with limit:
                await self._tried(task)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TooLate(f"no answer began within {seconds:g} s") from error
        finally:
            task.delivery.on_begin = None

    async def _tried(self, task: Task) -> None:
        """Try engines until one answers. Each is tried once in its life."""
        while not isinstance(outcome := await self._once(task), Done):
            await condemned(self.desk, task)
            self._go_on(task, outcome)
        if outcome.left is not None:
            raise asyncio.CancelledError  # that one would hold this frame, and be held

    def _go_on(self, task: Task, outcome: Outcome) -> None:
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

    async def _once(self, task: Task) -> Outcome:
        need = task.work.need
        if task.tried:
            need = structs.replace(need, tried=frozenset(task.tried))
        clock, record = self.desk.records.clock, task.record
        asked = clock()
        lull = Lull(task.delivery, record.note, streams=task.work.mode == "stream")
        try:
            async with self.desk.room.claim(need, lull.note) as send:
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
            if await otherwise(self.desk.current, task):
                return Again()
            # Those that are left cannot, and one that was tried has said why.
            if task.failure:
                raise reason(self.desk.current, task.failure, task, refusal) from None
            raise
        finally:
            if lull.begun:
                await lull.end()

    async def _budgeted(self, task: Task, send: Send) -> Outcome:
        """Count what is asked again, which bounds how much else may be."""
        if not task.tried:
            return await self._asked(task, send)
        with self.watch.budget.another():
            return await self._asked(task, send)

    async def _asked(self, task: Task, send: Send) -> Outcome:
        to, work, delivery = send.to, task.work, task.delivery
        flow: Flow = listener(work, task.record.id, to.engine.variant)
        body = work.body_for(to.engine, send.course.slot)
        if delivery.given.size:
            refuses = await self.templates.refuses(to, work.dialect)
            plan = task.onward(to.engine, template_refuses=refuses)
            if not isinstance(plan, Resume):
                return await _without_engine(task, plan)
            body, flow = plan.body, Mended(plan.splice)
        known = struck(self.desk, task)
        if known:
            await self.watch.apart(to.key)
        delivery.comes_from(to.node, to.engine.variant)
        vigil = Vigil(
            self.watch,
            to.key,
            work.need,
            self.watch.time(),
            send.course.first_seconds,
            tells=work.tells_us,
            halting=b'"tools"' in work.body,
            paused=delivery.paused,
            struck=known,
        )
        question = Question(
            origin=to.origin,
            target=task.request.target,
            headers=headers_for(
                to.engine,
                task.request.headers,
                request_id=task.record.id,
                token=self.token,
            ),
            body=body,
            flow=flow,
            vigil=vigil,
            course=send.course,
        )
        self.watch.keep(vigil)
        try:
            outcome = await attempted(self.upstream, question, work, delivery)
        finally:
            self.watch.end(vigil)
        died(self.desk, self.watch, task, vigil, to, outcome)
        if isinstance(outcome, Broken) and not outcome.final:
            task.broke(to, outcome.error, flow)
        return outcome

    async def _followed(self, task: Task, to: Candidate, outcome: Outcome) -> Outcome:
        """Draw conclusions from an attempt; a broken answer may lack but its end."""
        fleet, now = self.desk.current.fleet, self.desk.records.clock()
        match outcome:
            case Full():
                task.delivery.attempts -= 1
                self.desk.current.become(fleet.turned_away(*to.key))
            case Elsewhere(error, fault, longer):
                task.tried.add(to.life)
                task.failure = error
                task.failures += 1
                if longer:
                    task.work = task.work.longer(to.engine.context)
                failed(self.desk.breaker, task, to, error, fault)
                if isinstance(error, NotReached):
                    self.desk.current.become(fleet.failed(to.member, str(error), now))
            case Done(outcome="answered"):
                answered(self.desk, task, to)
            case Broken(error, fault, final=False):
                failed(self.desk.breaker, task, to, error, fault)
                plan = task.onward(to.engine)
                if not isinstance(plan, Resume):
                    return await _without_engine(task, plan)
            case _:
                pass
        return outcome


async def _without_engine(task: Task, plan: Finish | Refuse) -> Outcome:
    """End an answer that needs no engine, or give up one that no engine can end."""
    match plan:
        case Finish(tail):
            return await completed(tail, task.work, task.delivery)
        case Refuse(reason):
            why = f"{task.failure}; no other node can go on: {reason}"
            return Broken(NodeLost(why), final=True)


async def _told(error: EdgeserveError, request: Request, delivery: Delivery) -> None:
    with suppress(ConnectionError):
        await delivery.fail(error, ROUTES[request.path].dialect)
