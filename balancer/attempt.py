"""One try at one engine: ask, judge, and carry the answer to the client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from balancer import aggregate
from balancer.aggregate.answer import Aggregate, Headless, Incomplete
from balancer.delivery import Delivery
from balancer.judge import code, judge, message
from balancer.request import Work
from balancer.sse import Parser
from balancer.stream import Listener, StreamedError
from edgeserve.errors import EdgeserveError, NodeLost, NoNode
from edgeserve.relay.upstream import Answer, Origin, Upstream

CUT_SHORT = "the stream ended before the answer did"
JSON = {"content-type": "application/json; charset=utf-8"}


@dataclass(frozen=True)
class Done:
    """The client has its answer, whatever it says."""

    outcome: str = "answered"


@dataclass(frozen=True)
class Full:
    """The node had no slot; nothing is wrong with it."""


@dataclass(frozen=True)
class Elsewhere:
    """Another engine should try. `lost` when the node itself could not be reached.

    `longer` when only one with a longer context can.
    """

    error: EdgeserveError
    lost: bool = False
    longer: bool = False


@dataclass(frozen=True)
class AsItIs:
    """The stream cannot be put together: ask again, without streaming."""


Outcome = Done | Full | Elsewhere | AsItIs


@dataclass(frozen=True, kw_only=True)
class Question:
    """What one attempt sends."""

    origin: Origin
    target: str
    headers: Mapping[str, str]
    body: bytes


async def attempted(
    upstream: Upstream, question: Question, work: Work, delivery: Delivery
) -> Outcome:
    """Ask one node; Elsewhere and Full only while the client has had no content."""
    try:
        async with upstream.ask(
            question.origin, "POST", question.target, question.headers, question.body
        ) as answer:
            return await _carried(answer, work, delivery)
    except StreamedError as error:
        return await _judged(error.status, JSON, error.body, work, delivery)
    except NodeLost as error:
        if not delivery.begun:
            return Elsewhere(error, lost=True)
        await delivery.fail(error, work.dialect)
        return Done("broken off")


async def _carried(answer: Answer, work: Work, delivery: Delivery) -> Outcome:
    if answer.status >= 400:
        body = await answer.read()
        return await _judged(answer.status, answer.headers, body, work, delivery)
    streams = answer.headers.get("content-type", "").startswith("text/event-stream")
    if streams and work.mode == "aggregate":
        return await _put_together(answer, work, delivery)
    if streams:
        return await _streamed(answer, work, delivery)
    await delivery.whole(answer.status, answer.headers, await answer.read())
    return Done()


async def _judged(
    status: int, headers: Mapping[str, str], body: bytes, work: Work, delivery: Delivery
) -> Outcome:
    match judge(status, body):
        case "full":
            return Full()
        case "elsewhere":
            return Elsewhere(_refusal(status, message(body)))
        case "longer":
            return Elsewhere(EngineRefusal(status, headers, body), longer=True)
        case "pass":
            error = EngineRefusal(status, headers, body)
            await delivery.fail(error, work.dialect)
            return Done("refused by the engine")


def _refusal(status: int, said: str) -> EdgeserveError:
    if status in {401, 403}:
        return NodeLost(
            f"the node does not accept our fleet token ({said}); both need the same"
        )
    return NoNode(said) if status in {404, 503} else NodeLost(said)


class EngineRefusal(EdgeserveError):
    """An engine's own error, passed on in its very bytes."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(message(body))
        self.status = status
        self.code = code(body) or "engine_error"
        self._headers = headers
        self._body = body

    def body(self) -> bytes:
        """Return what the engine sent."""
        return self._body

    def headers(self) -> dict[str, str]:
        """Return what came with it."""
        return dict(self._headers)


async def _streamed(answer: Answer, work: Work, delivery: Delivery) -> Outcome:
    listener = Listener(work.dialect)
    while piece := await answer.chunk():
        ready = listener.feed(piece)
        if ready and listener.begun:
            await delivery.content(answer.headers, ready)
        elif ready:
            await delivery.life(answer.headers, ready)
    if not listener.ended:
        raise NodeLost(CUT_SHORT)
    await delivery.end()
    return Done()


async def _put_together(answer: Answer, work: Work, delivery: Delivery) -> Outcome:
    try:
        body = await _body(answer, aggregate.of(work.dialect))
    except Headless:
        return AsItIs()
    except Incomplete as error:
        raise NodeLost(CUT_SHORT) from error
    except (LookupError, TypeError, ValueError) as error:
        raise NodeLost(f"its stream makes no sense: {error!r}") from error
    await delivery.whole(200, {**answer.headers, **JSON}, body)
    return Done()


async def _body(answer: Answer, whole: Aggregate) -> bytes:
    parser = Parser()
    while piece := await answer.chunk():
        for event in parser.feed(piece):
            whole.add(event)
    return whole.body()
