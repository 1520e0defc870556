"""Attempt outcomes: how one attempt can end, and how its record says so."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from balancer.failover.context import RequestContext
from balancer.health.faults import Fault
from balancer.routing.decision import Send
from balancer.telemetry.records import BROKEN, AttemptRecord
from edgeserve.errors import EdgeserveError, NodeLost

ANSWERED = "answered"


class GivenUp(NodeLost):
    """A node or an engine showed no progress."""


@dataclass(frozen=True)
class Done:
    """The client has its answer, whatever it says.

    `left`: how we learned that it has gone, once it had all of it.
    """

    outcome: str = ANSWERED
    left: asyncio.CancelledError | None = None


DONE = Done()


@dataclass(frozen=True)
class Full:
    """The node had no slot; nothing is wrong with it."""


@dataclass(frozen=True)
class Elsewhere:
    """Another engine should try. `fault`: whose fault it is that this one did not.

    `longer` when only one with a longer context can.
    """

    error: EdgeserveError
    fault: Fault = "none"
    longer: bool = False

    @property
    def ended(self) -> bool:
        """Whether the engine seems to have died, or to hang."""
        return self.fault == "engine" and isinstance(self.error, NodeLost)


@dataclass(frozen=True)
class Broken:
    """The answer broke off after content. `final` where no engine would go on."""

    error: NodeLost
    fault: Fault = "none"
    final: bool = False


@dataclass(frozen=True)
class AsItIs:
    """The stream cannot be put together: ask again, without streaming."""


@dataclass(frozen=True)
class Again:
    """Look again: the request asks for something else now."""


Outcome = Done | Full | Elsewhere | Broken | AsItIs | Again


def begun(send: Send, now: float, task: RequestContext) -> AttemptRecord:
    """Open the account of an attempt."""
    attempt = AttemptRecord(
        node=send.to.node,
        engine=send.to.engine.id,
        variant=send.to.engine.variant,
        started=now,
        verdicts=send.verdicts,
        course=send.observer,
        resumes=task.delivery.given.size > 0,
    )
    task.record.attempts.append(attempt)
    return attempt


def called(outcome: Outcome) -> str:
    """Say in a few words what became of it."""
    match outcome:
        case Done(outcome=name):
            return name
        case Full():
            return "it had no slot left"
        case Elsewhere(error):
            return str(error)
        case Broken(error):
            return f"{BROKEN}: {error}"
        case AsItIs():
            return "asked again without streaming"
        case Again():
            return "asked for something else"
