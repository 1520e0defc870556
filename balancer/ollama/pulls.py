"""Ollama's pull: which node fetches, and how far it is as lines. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from balancer.fleet.members import Fleet, Node
from edgeserve.errors import EdgeserveError, NoNode
from edgeserve.orders.pulls import PullReport

Json = dict[str, Any]

STARTING: Json = {"status": "pulling manifest"}
SUCCESS: Json = {"status": "success"}


class PullFailed(EdgeserveError):
    """The node could not fetch the model."""

    status = 502
    code = "pull_failed"


def source_of(name: str) -> str:
    """Return the source that a name of Ollama's stands for."""
    return name.strip().removesuffix(":latest")


def roomiest(fleet: Fleet) -> Node:
    """Return the node with most memory, GPUs included: the likeliest to run a model.

    Raises NoNode.
    """
    up = [each for each in fleet.nodes if each.state == "up"]
    if not up:
        raise NoNode("no node is up")
    return max(up, key=lambda each: (_memory(each), each.id))


def _memory(node: Node) -> int:
    hardware = node.report.hardware
    return hardware.memory.total + sum(each.memory_total for each in hardware.gpus)


def pull_on(node: Node, before: PullReport, fleet: Fleet) -> PullReport:
    """Return what a node reports of a pull now; `node` is it as it was told to pull.

    Raises PullFailed where it has gone or started anew.
    """
    for each in fleet.nodes:
        if each.id == node.id and each.state != "unreachable":
            found = (p for p in each.report.pulls if p.id == before.id)
            if each.report.instance == node.report.instance:
                return next(found, before)
    raise PullFailed(
        f"{node.name} does not answer or has restarted; `edgeserve nodes` says more"
    )


def progress(pull: PullReport) -> Json:
    """Return a line that says how far a pull is. Raises PullFailed where it failed."""
    if pull.over and pull.state != "done":
        raise PullFailed(pull.problem or f"the pull was {pull.state}")
    if not pull.file:
        return {"status": pull.step or STARTING["status"]}
    name = hashlib.sha256(pull.file.encode()).hexdigest()
    line: Json = {"status": f"pulling {pull.file}", "digest": f"sha256:{name}"}
    if pull.total:
        line |= {"total": pull.total, "completed": pull.done}
    return line


def pulled_model(pull: PullReport) -> str:
    """Return a name under which the fetched model can be called."""
    variants: Iterable[str] = (each.variant for each in pull.files if each.variant)
    return next(iter(variants), PurePath(pull.path).name)
