"""What an attempt says about the engine that was asked, and about the request."""

from __future__ import annotations

from balancer.attempt import GivenUp
from balancer.blame import Fault
from balancer.breaker import Breaker
from balancer.candidates import Candidate
from balancer.task import Task
from edgeserve.errors import EdgeserveError


def failed(
    breaker: Breaker, task: Task, to: Candidate, error: EdgeserveError, fault: Fault
) -> None:
    """Hold a failure against an engine; not one that may be the request's own.

    Of that a probe learns more, or another engine that answers the request.
    """
    if fault == "doubt" and not isinstance(error, GivenUp):
        task.questioned.add(to.key)
        breaker.question(to.key)
    else:
        breaker.failed(to.key, fault)


def answered(breaker: Breaker, task: Task, to: Candidate) -> None:
    """Note that an engine is well; what it answers, another must not call an error."""
    breaker.answered(to.key)
    for key in task.questioned - {to.key}:
        breaker.failed(key, "doubt")
