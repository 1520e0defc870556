"""Attempts: send one request to one engine and pass its answer to the client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from balancer import dialects
from balancer.dialects.base import Aggregate, Headless, Incomplete
from balancer.dialects.stream import LIFE, PROGRESS, StreamedError, StreamReader
from balancer.discovery.node_client import NodeClient
from balancer.failover.attempt_watchdog import AttemptWatchdog
from balancer.failover.outcome import (
    DONE,
    AsItIs,
    Broken,
    Done,
    Elsewhere,
    Full,
    GivenUp,
    Outcome,
)
from balancer.failover.refusal import EngineRefusal
from balancer.failover.splice import ObservedStream
from balancer.fleet.engines import EngineCandidate
from balancer.health.faults import Fault, failure_of, fault_of_loss
from balancer.request import InferenceRequest
from balancer.response import ClientResponse
from balancer.routing.decision import UNOBSERVED, AttemptObserver
from edgeserve.errors import EdgeserveError, NodeLost, NoFiles, NoNode, NotReached
from edgeserve.http.sse import Parser
from edgeserve.http.types import Answer, Request
from edgeserve.openai import message

CUT_SHORT = "the stream ended before the answer did"

JSON = {"content-type": "application/json; charset=utf-8"}


class Senseless(NodeLost):
    """An answer came to its proper end, but is none; the request may be why."""

    def __init__(self, why: str, fault: Fault = "doubt") -> None:
        super().__init__(why)
        self.fault: Fault = fault


@dataclass(slots=True, kw_only=True)
class AttemptRequest:
    """What one attempt sends, and how its answer is to be understood."""

    to: EngineCandidate
    request: Request
    request_id: str
    body: bytes
    flow: StreamReader
    watchdog: AttemptWatchdog
    course: AttemptObserver = UNOBSERVED


async def attempted(
    nodes: NodeClient,
    question: AttemptRequest,
    work: InferenceRequest,
    delivery: ClientResponse,
) -> Outcome:
    """Ask one node; Elsewhere and Full only while it has added no content."""
    before, watchdog = delivery.given.size, question.watchdog
    flow = ObservedStream(question.flow, question.course)
    try:
        async with nodes.forward(
            question.to, question.request, question.request_id, question.body
        ) as answer:
            outcome = await _carried(answer, flow, work, delivery, watchdog)
            if outcome in (DONE, AsItIs()):
                flow.answered()
            return outcome
    except StreamedError as error:
        return await _judged(error.status, JSON, error.body, work, delivery)
    except asyncio.CancelledError as left:
        if _has_all(flow, work, delivery):
            flow.answered()
            return Done(left=left)
        if not watchdog.gave_up():
            raise
        why = f"{question.to.origin.url} was given up: {watchdog.why}"
        return _lost(GivenUp(why), watchdog.fault, delivery, before)
    except NoFiles:
        raise  # no engine's fault, and no other one could be reached
    except NodeLost as error:
        return _lost(error, _fault(error, watchdog), delivery, before)


def _has_all(
    flow: StreamReader, work: InferenceRequest, delivery: ClientResponse
) -> bool:
    """Whether its client has an answer, of which but the end of the body may lack."""
    return work.mode == "stream" and flow.ended and not delivery.reply.missed


def _fault(error: NodeLost, watchdog: AttemptWatchdog) -> Fault:
    """Say whose fault a lost answer is."""
    if isinstance(error, Senseless):
        return error.fault
    if watchdog.excused:
        return "none"
    return fault_of_loss(connected=not isinstance(error, NotReached))


def _lost(
    error: NodeLost, fault: Fault, delivery: ClientResponse, before: int
) -> Outcome:
    if delivery.given.size > before:
        return Broken(error, fault)
    return Elsewhere(error, fault)


async def _carried(
    answer: Answer,
    flow: ObservedStream,
    work: InferenceRequest,
    delivery: ClientResponse,
    watchdog: AttemptWatchdog,
) -> Outcome:
    if answer.status >= 400:
        body = await answer.read()
        return await _judged(answer.status, answer.headers, body, work, delivery)
    streams = answer.headers.get("content-type", "").startswith("text/event-stream")
    if streams and work.mode == "aggregate":
        return await _put_together(answer, flow, work, delivery, watchdog)
    if streams:
        return await _streamed(answer, flow, work, delivery, watchdog)
    body = await answer.read()
    flow.whole(body)
    await delivery.whole(answer.status, answer.headers, body)
    return DONE


async def _judged(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    work: InferenceRequest,
    delivery: ClientResponse,
) -> Outcome:
    error, failure = EngineRefusal(status, headers, body), failure_of(status, body)
    fault = failure.fault
    match failure.next_step:
        case "full":
            return Full()
        case "elsewhere":
            return Elsewhere(_refusal(status, message(body)), fault)
        case "longer" if not delivery.given.size:
            return Elsewhere(error, longer=True)
        case "pass" if fault != "none":
            return Elsewhere(error, fault)
        case _ if delivery.given.size:
            refused = f"no other node goes on with the answer: {error}"
            return Broken(NodeLost(refused), final=True)
        case _:
            await delivery.fail(error, work.dialect)
            return Done("refused by the engine")


def _refusal(status: int, said: str) -> EdgeserveError:
    if status in {401, 403}:
        return NodeLost(
            f"the node does not accept our fleet token ({said}); both need the same"
        )
    return NoNode(said) if status in {404, 503} else NodeLost(said)


async def _streamed(
    answer: Answer,
    flow: StreamReader,
    work: InferenceRequest,
    delivery: ClientResponse,
    watchdog: AttemptWatchdog,
) -> Outcome:
    watchdog.heard("head")
    while not flow.begun and (piece := await answer.chunk()):
        ready = flow.feed(piece)
        watchdog.heard("progress" if PROGRESS in piece else "ping")
        if flow.begun:
            await delivery.content(answer.headers, ready)
        elif ready or delivery.silent:
            await delivery.life(answer.headers, ready or LIFE)
    watchdog.heard("text")
    await delivery.rest(answer, flow, watchdog)
    told = flow.error
    if told is not None and told.raw and _own(told):
        refusal = EngineRefusal(told.status, JSON, told.body)
        await delivery.fail(refusal, work.dialect)
        return Done("refused by the engine")
    _insist_on_end(flow)
    await delivery.end()
    return DONE


def _own(error: StreamedError) -> bool:
    """Whether it is the request's own fault."""
    return failure_of(error.status, error.body).fault == "none"


def _insist_on_end(flow: StreamReader) -> None:
    """Raise what ended the answer before its end."""
    if flow.ended:
        return
    if flow.error is None:
        raise Senseless(CUT_SHORT)
    error = flow.error
    fault = failure_of(error.status, error.body).fault
    if fault == "none":
        raise error
    raise Senseless(f"the engine failed: {message(error.body)}", fault)


async def completed(
    tail: bytes, work: InferenceRequest, delivery: ClientResponse
) -> Outcome:
    """Give the client the end of an answer that was complete but for it."""
    if work.mode != "aggregate":
        await delivery.end(tail)
        return DONE
    delivery.given.add(tail)
    return await _gathered(JSON, work, delivery)


async def _put_together(
    answer: Answer,
    flow: StreamReader,
    work: InferenceRequest,
    delivery: ClientResponse,
    watchdog: AttemptWatchdog,
) -> Outcome:
    watchdog.heard("head")
    while piece := await answer.chunk():
        ready = flow.feed(piece)
        if flow.begun:
            delivery.given.add(ready)
            watchdog.texts += not piece.startswith(b":")
        else:
            watchdog.heard("progress" if PROGRESS in piece else "ping")
    _insist_on_end(flow)
    return await _gathered(answer.headers, work, delivery)


async def _gathered(
    headers: Mapping[str, str], work: InferenceRequest, delivery: ClientResponse
) -> Outcome:
    try:
        body = _whole(delivery.given.whole(), dialects.of(work.dialect))
    except Headless:
        delivery.given.forget()
        return AsItIs()
    except Incomplete as error:
        raise Senseless(CUT_SHORT) from error
    except (LookupError, TypeError, ValueError) as error:
        raise Senseless(f"its stream makes no sense: {error!r}") from error
    await delivery.whole(200, {**headers, **JSON}, body)
    return DONE


def _whole(events: bytes, whole: Aggregate) -> bytes:
    for each in Parser().feed(events):
        whole.add(each)
    return whole.body()
