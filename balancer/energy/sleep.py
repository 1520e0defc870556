"""Sleep: which machine may sleep now, because nothing needs it. Pure.

One after the other, those that take most first, so that what one leaves to the others
shows before the next one goes. A machine that has just come up stays for as long as it
was to be idle, and for ten times as long as it takes to come up: else each request
would wake it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from balancer.fleet.engines import EngineCandidate
from balancer.fleet.members import Node
from edgeserve.openai import names_of, normal
from edgeserve.wire import NodeReport

BOOTS = 10.0
"""A machine is awake for so many times the seconds that it takes to come up."""


@dataclass(frozen=True, kw_only=True)
class AwakeMachine:
    """A machine whose owner lets it sleep. Times are seconds, `watts` what it takes.

    `needed` says what needs it or who uses it, "" where nothing does.
    """

    id: str
    name: str
    idle: float
    awake: float
    boot: float
    watts: float = 0.0
    needed: str = ""


def to_sleep(machines: Iterable[AwakeMachine], after: float) -> AwakeMachine | None:
    """Return the machine that shall sleep now; `after` seconds idle, 0 for never."""
    if after <= 0:
        return None
    found = [
        each
        for each in machines
        if not each.needed
        and each.idle >= after
        and each.awake >= max(after, BOOTS * each.boot)
    ]
    return max(found, key=lambda each: (each.watts, each.idle), default=None)


def needed(
    node: Node, awake: Sequence[EngineCandidate], least: Callable[[str], int]
) -> str:
    """Say what needs a node, or who uses its machine; "" for nothing.

    `awake` are the engines that take requests, on all nodes; `least` is how many of
    them a model in normal spelling must have.
    """
    sleep = node.report.sleep
    if sleep is None:
        return "its owner has not allowed it to sleep"
    return sleep.in_use or _work(node.report) or _replicas(node, awake, least)


def _work(report: NodeReport) -> str:
    """Say what a node does that is no request."""
    if report.workers or any(each.group for each in report.engines):
        return "it computes for a model of several machines"
    if report.servers:
        return "servers of other programs run there"
    if any(not each.over for each in report.pulls):
        return "it fetches a model"
    for engine in report.engines:
        if engine.busy:
            return "it answers a request"
        if engine.state == "loading":
            return f"it loads {engine.variant}"
    return ""


def _replicas(
    node: Node, awake: Sequence[EngineCandidate], least: Callable[[str], int]
) -> str:
    """Say which model would have fewer replicas than it must have."""
    others = [each for each in awake if each.node_id != node.id]
    for engine in node.report.engines:
        for name in names_of(engine):
            wanted = least(normal(name))
            if wanted and sum(each.serves(name) for each in others) < wanted:
                return f"{name} needs its replicas"
    return ""
