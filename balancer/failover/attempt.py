"""Attempts: send one request to one engine and pass its answer to the client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from msgspec import structs

from balancer.dialects.base import Aggregate, Headless, Incomplete, StreamedError
from balancer.dialects.stream import CUT_SHORT, KEEP_ALIVE, StreamReader
from balancer.dialects.timings import PROGRESS, Timings
from balancer.discovery.node_client import NodeClient
from balancer.failover.context import RequestContext
from balancer.failover.outcome import (
    DONE,
    AskWhole,
    Broken,
    Done,
    Elsewhere,
    Full,
    GivenUp,
    Moved,
    Outcome,
)
from balancer.failover.refusal import EngineRefusal
from balancer.failover.watchdog import AttemptWatchdog
from balancer.health.faults import Fault, failure_of, fault_of_loss
from balancer.response import ClientResponse, close_soon
from balancer.routing.decision import Send
from edgeserve.errors import (
    EdgeserveError,
    LoopDetected,
    NodeLost,
    NoFiles,
    NoNode,
    NotReached,
)
from edgeserve.http.sse import EventReader
from edgeserve.http.types import Answer
from edgeserve.openai import message, retry_after
from edgeserve.runtime.memory import drop_tracebacks

REFUSED = Done("refused by the engine")

JSON = {"content-type": "application/json; charset=utf-8"}


class InvalidAnswer(NodeLost):
    """An answer ended properly, but is none; the request may be the cause."""

    def __init__(self, why: str, fault: Fault = "doubt") -> None:
        super().__init__(why)
        self.fault: Fault = fault


async def run_attempt(
    nodes: NodeClient,
    context: RequestContext,
    send: Send,
    *,
    body: bytes,
    reader: StreamReader,
    watchdog: AttemptWatchdog,
) -> Outcome:
    """Ask one engine; Elsewhere and Full only while it has added no content."""
    before = context.response.sent.size
    try:
        async with nodes.forward(
            send.to, context.received, context.record.id, body
        ) as answer:
            outcome = await _relay(answer, reader, context, watchdog)
            if outcome is DONE or isinstance(outcome, AskWhole):
                _answered(context, send, reader)
            return outcome
    except StreamedError as error:
        return await _on_error(error.status, JSON, error.body, context)
    except asyncio.CancelledError as cancelled:
        if _is_complete(reader, context):
            _answered(context, send, reader)
            return Done(left=cancelled)
        if not watchdog.gave_up():
            raise
        return _given_up(send, watchdog, context.response, before)
    except NoFiles:
        raise  # no engine's fault, and no other engine could be reached
    except NodeLost as error:
        return _lost(error, _fault(error, watchdog), context.response, before)


def _given_up(
    send: Send, watchdog: AttemptWatchdog, response: ClientResponse, before: int
) -> Outcome:
    if watchdog.move is not None:
        return Moved(watchdog.move.why)
    why = f"{send.to.origin.url} was given up: {watchdog.why}"
    return _lost(GivenUp(why), watchdog.fault, response, before)


def _answered(context: RequestContext, send: Send, reader: StreamReader) -> None:
    """Keep what the whole answer took."""
    timings = context.record.attempts[-1].timings = reader.timings()
    send.answered(timings)


def note_taken(
    context: RequestContext, reader: StreamReader, watchdog: AttemptWatchdog
) -> None:
    """Keep what was seen of an answer that broke off, or that told no numbers."""
    attempt = context.record.attempts[-1]
    if attempt.timings is None and (reader.begun or reader.prompt):
        written = watchdog.texts + reader.begun
        attempt.timings = Timings(0, reader.prompt or 0, 0.0, written, 0.0)


def _is_complete(stream: StreamReader, context: RequestContext) -> bool:
    """Whether the client has its whole answer, perhaps without the body's end."""
    streams = context.request.mode == "stream"
    return streams and stream.ended and not context.response.reply.missed


def _fault(error: NodeLost, watchdog: AttemptWatchdog) -> Fault:
    """Say whose fault a lost answer is."""
    if isinstance(error, InvalidAnswer):
        return error.fault
    if watchdog.excused:
        return "none"
    return fault_of_loss(connected=not isinstance(error, NotReached))


def _lost(
    error: NodeLost, fault: Fault, response: ClientResponse, before: int
) -> Outcome:
    # The context keeps it, and its traceback would hold the context.
    drop_tracebacks(error)
    if response.sent.size > before:
        return Broken(error, fault)
    return Elsewhere(error, fault)


async def _relay(
    answer: Answer,
    stream: StreamReader,
    context: RequestContext,
    watchdog: AttemptWatchdog,
) -> Outcome:
    if answer.status >= 400:
        body = await answer.read()
        return await _on_error(answer.status, answer.headers, body, context)
    streams = answer.headers.get("content-type", "").startswith("text/event-stream")
    if streams and context.request.mode != "stream":
        # Some servers always stream; a whole answer is then made of it, too.
        context.request = structs.replace(context.request, mode="aggregate")
        return await _aggregate(answer, stream, context, watchdog)
    if streams:
        return await _stream(answer, stream, context, watchdog)
    body = await answer.read()
    stream.whole(body)
    await context.response.whole(answer.status, answer.headers, body)
    return DONE


async def _on_error(
    status: int, headers: Mapping[str, str], body: bytes, context: RequestContext
) -> Outcome:
    """Decide what follows an engine's error; pass it on if it is the request's own."""
    response = context.response
    error, failure = EngineRefusal(status, headers, body), failure_of(status, body)
    match failure.next_step:
        case "full":
            return Full(retry_after(headers))
        case "elsewhere":
            return Elsewhere(_node_error(status, headers, body), failure.fault)
        case "longer" if not response.sent.size:
            return Elsewhere(error, longer_context=True)
        case "pass" if failure.fault != "none":
            return Elsewhere(error, failure.fault)
        case _ if response.sent.size:
            refused = f"no other node goes on with the answer: {error}"
            return Broken(NodeLost(refused), final=True)
        case _:
            await response.fail(error, context.request.dialect)
            return REFUSED


def _node_error(status: int, headers: Mapping[str, str], body: bytes) -> EdgeserveError:
    """Return what the client gets where no other engine does better."""
    sentence = message(body)
    if status == LoopDetected.status:
        return LoopDetected(sentence)
    if status not in {404, 503}:
        return NodeLost(sentence)
    error = NoNode(sentence)
    error.retry_after = retry_after(headers) or NoNode.retry_after
    return error


async def _stream(
    answer: Answer,
    stream: StreamReader,
    context: RequestContext,
    watchdog: AttemptWatchdog,
) -> Outcome:
    """Pass a stream to the client."""
    response = context.response
    if stream.signals_head:
        watchdog.note("head")
    while not stream.begun and (piece := await answer.chunk()):
        ready = stream.feed(piece)
        watchdog.note("progress" if PROGRESS in piece else "ping")
        if stream.begun:
            await response.content(answer.headers, ready)
        elif ready or response.silent:
            await response.send_keep_alive(answer.headers, ready or KEEP_ALIVE)
    watchdog.note("text")
    await response.rest(answer, stream, watchdog)
    missing = stream.finish()
    error = stream.error
    if error is not None and error.raw and _fault_of_event(error) == "none":
        refusal = EngineRefusal(error.status, JSON, error.body)
        await response.fail(refusal, context.request.dialect)
        return REFUSED
    _require_end(stream)
    await response.end(missing)
    return DONE


def _fault_of_event(error: StreamedError) -> Fault:
    return failure_of(error.status, error.body).fault


def _require_end(stream: StreamReader) -> None:
    """Raise what ended the answer before its end."""
    if stream.ended:
        return
    if stream.error is None:
        raise InvalidAnswer(stream.cut_short)
    fault = _fault_of_event(stream.error)
    if fault == "none":
        raise stream.error
    why = f"the engine failed: {message(stream.error.body)}"
    raise InvalidAnswer(why, fault)


async def _aggregate(
    answer: Answer,
    stream: StreamReader,
    context: RequestContext,
    watchdog: AttemptWatchdog,
) -> Outcome:
    """Collect a stream for a client that asked for a whole answer."""
    if stream.signals_head:
        watchdog.note("head")
    bound = asyncio.timeout(None)
    try:
        async with bound:
            while piece := await answer.chunk():
                ready = stream.feed(piece)
                if stream.begun:
                    context.response.sent.add(ready)
                    watchdog.texts += not piece.startswith(b":")
                else:
                    watchdog.note("progress" if PROGRESS in piece else "ping")
                if stream.ended:
                    close_soon(bound)
    except TimeoutError:
        if not stream.ended:
            raise
    finally:
        del bound  # it holds the task, whose traceback would hold it
    context.response.sent.add(stream.finish())
    _require_end(stream)
    return await _send_aggregate(answer.headers, context)


async def _send_aggregate(
    headers: Mapping[str, str], context: RequestContext
) -> Outcome:
    response = context.response
    try:
        aggregate = context.request.dialect.aggregate()
        body = _aggregated(response.sent.whole(), aggregate)
    except Headless:
        response.sent.forget()
        return AskWhole()
    except Incomplete as error:
        raise InvalidAnswer(CUT_SHORT) from error
    except (LookupError, TypeError, ValueError) as error:
        raise InvalidAnswer(f"its stream makes no sense: {error!r}") from error
    await response.whole(200, {**headers, **JSON}, body)
    return DONE


def _aggregated(events: bytes, aggregate: Aggregate) -> bytes:
    for each in EventReader().feed(events):
        aggregate.add(each)
    return aggregate.body()


async def send_tail(tail: bytes, context: RequestContext) -> Outcome:
    """Give the client the last bytes of an answer that needs no engine any more."""
    if context.request.mode != "aggregate":
        await context.response.end(tail)
        return DONE
    context.response.sent.add(tail)
    return await _send_aggregate(JSON, context)
