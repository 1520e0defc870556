"""Inference routes: authenticate, admit, set the deadline, answer, record."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from balancer.clients.admission import Admission
from balancer.clients.forwarded import client_address
from balancer.clients.keys import REFUSED, ClientKey, ModelNotAllowed
from balancer.clients.limits import RateLimits
from balancer.clients.usage import ClientUsage
from balancer.composition.cascade import Unsure
from balancer.dialects import DIALECTS
from balancer.discovery.loops import check_loop
from balancer.failover.conclusions import is_suspect
from balancer.failover.context import RequestContext
from balancer.failover.retry import RetryLoop
from balancer.failover.splice import ResumePolicy
from balancer.request import (
    deadline_seconds,
    fresh_id,
    read_request,
    request_id,
    session_of,
)
from balancer.response import ClientResponse
from balancer.state import BalancerState
from balancer.telemetry.recorder import Trace
from balancer.telemetry.records import RequestRecord
from balancer.telemetry.spans import SpanWriter
from edgeserve.errors import EdgeserveError, TooLate, WrongMethod
from edgeserve.http.types import Request, Response
from edgeserve.openai import ROUTES, asking
from edgeserve.quantization import floor_asked
from edgeserve.runtime.memory import drop_tracebacks
from edgeserve.wire import BALANCER_HEADER

LEFT = "the client left"


@dataclass(frozen=True, kw_only=True)
class InferenceHandler:
    """The handler of every route that reaches an engine."""

    state: BalancerState
    clients: Admission
    limits: RateLimits
    usage: ClientUsage
    policy: ResumePolicy
    retry: RetryLoop
    proxies: frozenset[str] = frozenset()
    trace: Trace | None = None
    spans: SpanWriter | None = None

    async def __call__(self, request: Request, reply: Response) -> None:
        """Answer one request. Cancelling it closes the node's connection at once."""
        client, refusal = self._client(request)
        record = self._record(request, client)
        clock = self.state.records.clock
        response = ClientResponse(
            reply=reply, request_id=record.id, path=request.path, clock=clock
        )
        try:
            if refusal is not None:
                raise refusal
            await self._admit(request, client, record, response)
        except EdgeserveError as error:
            record.outcome = error.code
            await _send_error(error, request, response)
            drop_tracebacks(error)
        except (ConnectionError, asyncio.CancelledError) as error:
            record.outcome = None if record.answered else LEFT
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._close(client, record, response)
            if self.spans is not None:
                self.spans.closed(record, request.headers)

    def _client(self, request: Request) -> tuple[ClientKey, EdgeserveError | None]:
        try:
            return self.clients.check(request.headers), None
        except EdgeserveError as error:
            return REFUSED, error

    def _address(self, request: Request) -> str:
        if not self.proxies:
            return request.peer
        return client_address(request.peer, request.headers, self.proxies)

    def _record(self, request: Request, client: ClientKey) -> RequestRecord:
        """Begin the record, under another id where this one is another client's."""
        records, id_ = self.state.records, request_id(request.headers)
        if (found := records.get(id_)) is not None and found.owner != client.id:
            id_ = fresh_id()
        return records.open(id_, request.asked or request.path, client.name, client.id)

    def _close(
        self, client: ClientKey, record: RequestRecord, response: ClientResponse
    ) -> None:
        record.status = response.status or None
        if record.outcome is None and record.attempts:
            record.outcome = record.attempts[-1].outcome
        record.ended = self.state.records.clock()
        record.first_byte = response.began
        self.state.metrics.answered(record)
        if (used := record.used) is not None:
            self.state.metrics.used(client.name, record, used)
            self.usage.add(client.name, used)
            self.limits.charge(client, used.prompt + used.answer)

    async def _admit(
        self,
        request: Request,
        client: ClientKey,
        record: RequestRecord,
        response: ClientResponse,
    ) -> None:
        route = ROUTES[request.path]
        if request.method != route.method:
            raise WrongMethod(request.method, request.path, [route.method])
        if (passed := request.headers.get(BALANCER_HEADER)) is not None:
            check_loop(passed, self.retry.nodes.id)
        with self.state.in_flight, self.limits.entering(client, response.limits):
            seconds = deadline_seconds(request.headers)
            inference = read_request(
                route,
                asking(route, request.query, request.body),
                self.state.key,
                self.state.caps,
                client=client.id or self._address(request),
                session=session_of(request.headers),
                deadline=None if seconds is None else record.arrived + seconds,
                floor=floor_asked(request.headers),
                priority=client.priority,
            )
            record.model, record.stream = (
                inference.routing.model,
                inference.mode == "stream",
            )
            if not client.allows(inference.routing.model):
                raise ModelNotAllowed(inference.routing.model, client.models)
            context = RequestContext(
                received=request,
                request=inference,
                record=record,
                response=response,
                policy=self.policy,
            )
            is_suspect(self.state, context)
            virtual = self.state.routes.by_name.get(inference.routing.model)
            if virtual is not None:
                context.follow(virtual, self.state.prospects)
            if seconds is None:
                await self._run(context)
            else:
                await self._run_within(seconds, context)
            if self.trace:
                self.trace.answered(
                    record, inference.routing, self.state.records.clock()
                )

    async def _run(self, context: RequestContext) -> None:
        """Run the attempts; those of the large model follow where a small is unsure."""
        try:
            await self.retry.run(context)
        except Unsure as unsure:
            context.escalate(unsure)
        except EdgeserveError:
            context.unhold()
            raise
        else:
            return
        await self.retry.run(context)

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
            late = TooLate(f"no answer began within {seconds:g} s")
            late.retry_after = context.retry_after
            raise late from error
        finally:
            context.response.on_begin = None


async def _send_error(
    error: EdgeserveError, request: Request, response: ClientResponse
) -> None:
    with suppress(ConnectionError):
        await response.fail(error, DIALECTS[ROUTES[request.path].dialect])
