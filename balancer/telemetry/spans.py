"""Spans: one for each request and one for each of its attempts, for OpenTelemetry.

Names and attributes are those of the semantic conventions for generative AI; ours begin
with `edgeserve.`. No span has any text of a prompt, an answer or an engine's error.
OpenTelemetry itself is an extra and is imported when spans are wanted.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from balancer.routing.tracking import AttemptTracker
from balancer.telemetry.records import (
    AttemptRecord,
    RequestRecord,
    outcome_of,
)
from edgeserve.openai import ROUTES
from edgeserve.runtime.log import warn_once

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

log = logging.getLogger(__name__)

Values = dict[str, str | int | float | bool]

OPERATIONS = {
    "chat": "chat",
    "completion": "text_completion",
    "embeddings": "embeddings",
}
"""Ability of a route → the conventions' name of the operation."""

PROVIDER = "edgeserve"

PARENT = ("traceparent", "tracestate")
"""The headers in which a client names the span that it is in."""

LEFT = "client_left"

_CODE = re.compile(r"[a-z][a-z_-]{0,40}")

NANO = 10**9


class SpanWriter:
    """Makes the spans of a request when it has ended, and hands them on."""

    def __init__(self, tracer: Tracer) -> None:
        from opentelemetry.trace import (
            SpanKind,
            Status,
            StatusCode,
            set_span_in_context,
        )
        from opentelemetry.trace.propagation.tracecontext import (
            TraceContextTextMapPropagator,
        )

        self._tracer = tracer
        self._server, self._client = SpanKind.SERVER, SpanKind.CLIENT
        self._error = Status(StatusCode.ERROR)
        self._inside = set_span_in_context
        self._extract = TraceContextTextMapPropagator().extract

    def closed(self, record: RequestRecord, headers: Mapping[str, str]) -> None:
        """Make the spans of a request that has ended. Never raises."""
        try:
            self._closed(record, headers)
        except Exception as error:  # noqa: BLE001 - a trace never costs an answer
            warn_once(log, f"a trace is left out: {error!r}")

    def _closed(self, record: RequestRecord, headers: Mapping[str, str]) -> None:
        clock = _Clock(record)
        operation = operation_of(record.path)
        span = self._tracer.start_span(
            f"{operation} {record.model}" if record.attempts else operation,
            self._parent(headers),
            self._server,
            start_time=clock.ns(record.arrived),
        )
        if not span.is_recording():
            return  # the sampler drops it, and so its attempts
        span.set_attributes(request_values(record, operation))
        if error := error_of(record):
            span.set_attribute("error.type", error)
            span.set_status(self._error)
        for number, attempt in enumerate(record.attempts):
            self._attempt(attempt, number, span, clock, operation)
        span.end(clock.ns(record.ended))

    def _parent(self, headers: Mapping[str, str]) -> Context | None:
        if PARENT[0] not in headers:
            return None
        return self._extract(
            {each: headers[each] for each in PARENT if each in headers}
        )

    def _attempt(
        self,
        attempt: AttemptRecord,
        number: int,
        parent: Span,
        clock: _Clock,
        operation: str,
    ) -> None:
        span = self._tracer.start_span(
            f"{operation} {attempt.send.to.engine.variant}",
            self._inside(parent),
            self._client,
            attempt_values(attempt, number, operation),
            start_time=clock.ns(attempt.started),
        )
        outcome = outcome_of(attempt.outcome)
        if outcome not in {"answered", "moved"}:
            span.set_attribute("error.type", outcome)
            span.set_status(self._error)
        span.end(clock.ns(attempt.ended))


class _Clock:
    """Turns times of a record into nanoseconds since 1970."""

    def __init__(self, record: RequestRecord) -> None:
        self._offset = record.arrived_at - record.arrived
        self._end = record.ended if record.ended is not None else record.arrived

    def ns(self, time: float | None) -> int:
        return int((self._offset + (self._end if time is None else time)) * NANO)


def operation_of(path: str) -> str:
    """Return the operation of a route, by the conventions where they have a name."""
    route = ROUTES.get(path)
    if route is None or route.needs is None or not route.slot:
        return path.rpartition("/")[2]  # `tokenize`, `count_tokens`
    return OPERATIONS.get(route.needs, route.needs)


def request_values(record: RequestRecord, operation: str) -> Values:
    """Return the attributes of a request.

    A model that no engine was asked for is left out: its name may be any text.
    """
    found: Values = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.stream": record.stream,
        "url.path": record.path,
        "edgeserve.request.id": record.id,
        "edgeserve.queue.seconds": record.waited,
        "edgeserve.attempts": len(record.attempts),
        "edgeserve.failover": is_failover(record),
    }
    if record.client:
        found["edgeserve.client"] = record.client
    if record.status is not None:
        found["http.response.status_code"] = record.status
    if record.first_byte is not None:
        first = record.first_byte - record.arrived
        found["gen_ai.response.time_to_first_chunk"] = first
        found["edgeserve.first_token.seconds"] = first
    if record.attempts:
        last, used = record.attempts[-1], record.used
        found["gen_ai.request.model"] = record.model
        found["gen_ai.response.model"] = last.send.to.engine.variant
        if used is not None:
            found["gen_ai.usage.input_tokens"] = used.prompt
            found["gen_ai.usage.cache_read.input_tokens"] = used.cached
            found["gen_ai.usage.output_tokens"] = used.answer
        predicted = record.attempts[0].send.first_seconds
        if predicted is not None:
            wait = record.waited + predicted
            found["edgeserve.first_token.predicted_seconds"] = wait
    return found


def attempt_values(attempt: AttemptRecord, number: int, operation: str) -> Values:
    """Return the attributes of an attempt at one engine."""
    send = attempt.send
    found: Values = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": send.to.engine.variant,
        "server.address": send.to.origin.host,
        "server.port": send.to.origin.port,
        "edgeserve.node": send.to.node,
        "edgeserve.engine": send.to.engine.id,
        "edgeserve.attempt": number + 1,
        "edgeserve.resumes": attempt.resumes,
        "edgeserve.outcome": outcome_of(attempt.outcome),
    }
    if send.first_seconds is not None:
        found["edgeserve.first_token.predicted_seconds"] = send.first_seconds
    if isinstance(send, AttemptTracker) and send.first is not None:
        found["edgeserve.first_token.seconds"] = send.first
    if attempt.timings is not None:
        timings = attempt.timings
        found["gen_ai.usage.input_tokens"] = timings.cached + timings.prompt
        found["gen_ai.usage.output_tokens"] = timings.predicted
    return found


def is_failover(record: RequestRecord) -> bool:
    """Whether an attempt failed and another followed."""
    earlier = record.attempts[:-1]
    return any(outcome_of(each.outcome) in {"broken", "failed"} for each in earlier)


def error_of(record: RequestRecord) -> str:
    """Return why a request has no whole answer, as a code; empty where it has."""
    if record.answered and (record.status or 0) < 500:
        return ""
    if record.outcome is None or record.status is None:
        return LEFT
    return record.outcome if _CODE.fullmatch(record.outcome) else "failed"
