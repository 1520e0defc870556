"""Attempt outcomes: how one attempt can end, and how the request log says so."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from balancer.failover.context import RequestContext
from balancer.health.faults import Fault
from balancer.routing.decision import Send
from balancer.telemetry.records import BROKEN, MOVED, AttemptRecord
from edgeserve.errors import EdgeserveError, NodeLost

ANSWERED = "answered"


class GivenUp(NodeLost):
    """A node or an engine showed no progress."""


@dataclass(frozen=True)
class Done:
    """The client has its answer, or the engine's refusal.

    `left`: the cancellation that came when the client left with a whole answer.
    """

    outcome: str = ANSWERED
    left: asyncio.CancelledError | None = None


DONE = Done()


@dataclass(frozen=True)
class Full:
    """The node had no free slot; nothing is wrong with it.

    `retry_after`: seconds after which it said to come back, None where it did not.
    """

    retry_after: int | None = None


@dataclass(frozen=True)
class Elsewhere:
    """Another engine should try; `fault` says whose fault this failure is.

    `longer_context`: only an engine with a longer context can answer.
    """

    error: EdgeserveError
    fault: Fault = "none"
    longer_context: bool = False

    @property
    def ended(self) -> bool:
        """Whether the engine seems to have died, or to hang."""
        return self.fault == "engine" and isinstance(self.error, NodeLost)


@dataclass(frozen=True)
class Broken:
    """The answer broke off after content. `final`: no engine would go on."""

    error: NodeLost
    fault: Fault = "none"
    final: bool = False


@dataclass(frozen=True)
class Moved:
    """A faster engine should go on with it; nothing is wrong with this one."""

    why: str


@dataclass(frozen=True)
class AskWhole:
    """The stream cannot be aggregated: ask again, without streaming."""


@dataclass(frozen=True)
class Rerouted:
    """The request asks for other engines now, or may ask one of them again."""


Outcome = Done | Full | Elsewhere | Broken | Moved | AskWhole | Rerouted


def open_attempt(send: Send, now: float, context: RequestContext) -> AttemptRecord:
    """Begin the record of an attempt."""
    resumes = context.response.sent.size > 0
    attempt = AttemptRecord(send, now, resumes)
    context.record.attempts.append(attempt)
    return attempt


def described(outcome: Outcome) -> str:
    """Describe an outcome in a few words."""
    match outcome:
        case Done(outcome=name):
            return name
        case Full():
            return "it had no slot left"
        case Elsewhere(error):
            return str(error)
        case Broken(error):
            return f"{BROKEN}: {error}"
        case Moved(why):
            return f"{MOVED}: {why}"
        case AskWhole():
            return "asked again without streaming"
        case Rerouted():
            return "asked for something else"
