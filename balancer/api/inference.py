"""Inference routes: authenticate, admit, set the deadline, answer, record."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from balancer.dialects import DIALECTS
from balancer.failover.conclusions import is_suspect
from balancer.failover.context import RequestContext
from balancer.failover.retry import RetryLoop
from balancer.failover.splice import ResumePolicy
from balancer.request import (
    deadline_seconds,
    read_request,
    request_id,
    session_of,
)
from balancer.response import ClientResponse
from balancer.state import BalancerState
from balancer.telemetry.recorder import Trace
from balancer.telemetry.records import RequestRecord
from edgeserve.errors import EdgeserveError, TooLate, WrongMethod
from edgeserve.http.types import Request, Response
from edgeserve.openai import ROUTES, asking
from edgeserve.quantization import floor_asked
from edgeserve.runtime.memory import untie
from edgeserve.security.tokens import Guard

LEFT = "the client left"


@dataclass(frozen=True, kw_only=True)
class InferenceHandler:
    """The handler of every route that reaches an engine."""

    state: BalancerState
    guard: Guard
    policy: ResumePolicy
    retry: RetryLoop
    trace: Trace | None = None

    async def __call__(self, request: Request, reply: Response) -> None:
        """Answer one request. Cancelling it closes the node's connection at once."""
        record = self.state.records.open(
            request_id(request.headers), request.path, request.peer
        )
        clock = self.state.records.clock
        response = ClientResponse(
            reply=reply, request_id=record.id, path=request.path, clock=clock
        )
        try:
            await self._admit(request, record, response)
        except EdgeserveError as error:
            record.outcome = error.code
            await _send_error(error, request, response)
            untie(error)
        except (ConnectionError, asyncio.CancelledError) as error:
            record.outcome = None if record.answered else LEFT
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._close(record, response)

    def _close(self, record: RequestRecord, response: ClientResponse) -> None:
        record.status = response.status or None
        if record.outcome is None and record.attempts:
            record.outcome = record.attempts[-1].outcome
        record.ended = self.state.records.clock()
        record.first_byte = response.began
        self.state.metrics.answered(record)

    async def _admit(
        self, request: Request, record: RequestRecord, response: ClientResponse
    ) -> None:
        shown = self.guard.check(request.headers)
        route = ROUTES[request.path]
        if request.method != route.method:
            raise WrongMethod(request.method, request.path, [route.method])
        with self.state.in_flight:
            seconds = deadline_seconds(request.headers)
            inference = read_request(
                route,
                asking(route, request.query, request.body),
                self.state.key,
                self.state.caps,
                client=shown or request.peer,
                session=session_of(request.headers),
                deadline=None if seconds is None else record.arrived + seconds,
                floor=floor_asked(request.headers),
            )
            record.model, record.stream = (
                inference.need.model,
                inference.mode == "stream",
            )
            context = RequestContext(
                received=request,
                request=inference,
                record=record,
                response=response,
                policy=self.policy,
            )
            is_suspect(self.state, context)
            if seconds is None:
                await self.retry.run(context)
            else:
                await self._run_within(seconds, context)
            if self.trace:
                self.trace.answered(record, inference.need, self.state.records.clock())

    async def _run_within(self, seconds: float, context: RequestContext) -> None:
        """Run the attempts, with the client's deadline until the answer begins.

        A refusal is sent after this block, when there is no deadline left to lift.
        """
        limit = asyncio.timeout(seconds)
        context.response.on_begin = partial(limit.reschedule, None)
        try:
            async with limit:
                await self.retry.run(context)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TooLate(f"no answer began within {seconds:g} s") from error
        finally:
            context.response.on_begin = None


async def _send_error(
    error: EdgeserveError, request: Request, response: ClientResponse
) -> None:
    with suppress(ConnectionError):
        await response.fail(error, DIALECTS[ROUTES[request.path].dialect])
