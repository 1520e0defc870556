"""What the record of a request says about each attempt."""

from __future__ import annotations

from balancer.attempt import (
    Again,
    AsItIs,
    Broken,
    Done,
    Elsewhere,
    Full,
    Outcome,
)
from balancer.record import BROKEN, Attempt
from balancer.schedule import Send
from balancer.task import Task


def begun(send: Send, now: float, task: Task) -> Attempt:
    """Open the account of an attempt."""
    attempt = Attempt(
        node=send.to.node,
        engine=send.to.engine.id,
        variant=send.to.engine.variant,
        started=now,
        verdicts=send.verdicts,
        course=send.course,
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
