"""Inference requests: read one, ask for a decision, carry the answer, try again."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from balancer.attempt import AsItIs, Done, Elsewhere, Full, Outcome, Question, attempted
from balancer.candidates import EngineKey
from balancer.delivery import Delivery
from balancer.desk import Desk
from balancer.record import Attempt, Record
from balancer.request import Work, deadline_seconds, headers_for, request_id, understood
from balancer.schedule import Send
from balancer.waiting import RETRY_AFTER
from edgeserve.auth import Guard
from edgeserve.errors import EdgeserveError, FleetBusy, NoNode, TooLate, UnknownRoute
from edgeserve.openai import ROUTES, Dialect
from edgeserve.relay.exchange import Reply, Request
from edgeserve.relay.upstream import Upstream


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
    attempts: int
    patience: float

    async def __call__(self, request: Request, reply: Reply) -> None:
        """Answer one request. Cancelling it closes the node's connection at once."""
        record = self.desk.records.open(
            request_id(request.headers), request.path, request.peer
        )
        delivery = Delivery(reply, record.id)
        with self._recorded(record, delivery):
            try:
                await self._admitted(request, record, delivery)
            except EdgeserveError as error:
                record.outcome = error.code
                await delivery.fail(error, _dialect(request.path))

    @contextmanager
    def _recorded(self, record: Record, delivery: Delivery) -> Generator[None]:
        try:
            yield
        except (ConnectionError, asyncio.CancelledError) as error:
            record.outcome = "the client left"
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            record.status = delivery.status or None
            if record.outcome is None and record.attempts:
                record.outcome = record.attempts[-1].outcome
            record.ended = self.desk.records.clock()
            self.desk.metrics.answered(record)

    async def _admitted(
        self, request: Request, record: Record, delivery: Delivery
    ) -> None:
        self.guard.check(request.headers)
        if request.method != "POST":
            raise UnknownRoute(request.method, request.path)
        with self.desk.doorkeeper.admit():
            work = understood(ROUTES[request.path], request.body)
            record.model, record.stream = work.need.model, work.mode == "stream"
            await self._in_time(Task(request, work, record, delivery))

    async def _in_time(self, task: Task) -> None:
        """Let the caller's deadline count until the answer begins.

        A refusal is answered after this block, when there is no deadline left to lift.
        """
        seconds = deadline_seconds(task.request.headers)
        limit = asyncio.timeout(seconds)

        def begin() -> None:
            limit.reschedule(None)
            task.record.first_byte = self.desk.records.clock()

        task.delivery.on_begin = begin
        try:
            async with limit:
                await self._tried(task)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TooLate(f"no answer began within {seconds:g} s") from error
        finally:
            task.delivery.on_begin = lambda: None

    async def _tried(self, task: Task) -> None:
        """Try engines until one answers. Each is tried once."""
        while not isinstance(outcome := await self._once(task), Done):
            match outcome:
                case AsItIs():
                    task.work = task.work.as_it_is()
                case Elsewhere(error) if len(task.tried) >= self.attempts:
                    raise error
                case Full() if task.record.waited >= self.patience:
                    raise FleetBusy(RETRY_AFTER, "its nodes have no slot after all")
                case _:
                    pass

    async def _once(self, task: Task) -> Outcome:
        need = replace(task.work.need, tried=frozenset(task.tried))
        clock, record = self.desk.records.clock, task.record
        asked = clock()
        try:
            async with self.desk.room.claim(need, record.note) as send:
                record.waited += clock() - asked
                attempt = _begun(send, clock(), record)
                try:
                    outcome = await self._asked(task, send)
                    attempt.outcome = _called(outcome)
                finally:
                    attempt.ended = clock()
                self._learn(task, send, outcome)
                return outcome
        except NoNode:
            # Those that are left cannot, and one that was tried has said why.
            if task.failure:
                raise task.failure from None
            raise

    async def _asked(self, task: Task, send: Send) -> Outcome:
        engine = send.to.engine
        task.delivery.comes_from(send.to.node, engine.variant)
        question = Question(
            origin=send.to.origin,
            target=task.request.target,
            headers=headers_for(
                engine,
                task.request.headers,
                request_id=task.record.id,
                token=self.token,
            ),
            body=task.work.body_for(engine),
        )
        return await attempted(self.upstream, question, task.work, task.delivery)

    def _learn(self, task: Task, send: Send, outcome: Outcome) -> None:
        fleet, now = self.desk.current.fleet, self.desk.records.clock()
        match outcome:
            case Full():
                task.delivery.attempts -= 1
                self.desk.current.become(fleet.turned_away(*send.to.key))
            case Elsewhere(error, lost, longer):
                task.tried.add(send.to.key)
                task.failure = error
                if longer:
                    task.work = task.work.longer(send.to.engine.context)
                if lost:
                    self.desk.current.become(
                        fleet.failed(send.to.member, str(error), now)
                    )
            case Done() | AsItIs():
                pass


@dataclass
class Task:
    """One request on its way through."""

    request: Request
    work: Work
    record: Record
    delivery: Delivery
    tried: set[EngineKey] = field(default_factory=set[EngineKey])
    failure: EdgeserveError | None = None


def _begun(send: Send, now: float, record: Record) -> Attempt:
    attempt = Attempt(
        node=send.to.node,
        engine=send.to.engine.id,
        variant=send.to.engine.variant,
        started=now,
        verdicts=send.verdicts,
    )
    record.attempts.append(attempt)
    return attempt


def _called(outcome: Outcome) -> str:
    match outcome:
        case Done(outcome=name):
            return name
        case Full():
            return "it had no slot left"
        case Elsewhere(error):
            return str(error)
        case AsItIs():
            return "asked again without streaming"


def _dialect(path: str) -> Dialect:
    return ROUTES[path].dialect
