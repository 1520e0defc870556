"""One-machine service: runs a node and a balancer together, and ends both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

import click

from edgeserve.cli.client import Endpoint, NoAnswer
from edgeserve.errors import CommandError
from edgeserve.runtime.children import first, running

POLL_SECONDS = 0.1

STOPPING = "stopping; running answers may finish, a second Ctrl-C aborts them"

Model = Mapping[str, Any]
Greet = Callable[[Sequence[Model]], None]


class NotServing(CommandError):
    """The node runs, but cannot serve the models it was asked for."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The two commands, the balancer's address, and limits in seconds."""

    node: Sequence[str]
    balancer: Sequence[str]
    place: Endpoint
    load_seconds: float
    grace: float


async def serve(plan: Plan, greet: Greet, stop: asyncio.Event) -> None:
    """Run both until `stop`, and tell `greet` the models once they can be called.

    Raises ChildEnded where one of them ends by itself, NotServing where no model can
    be served.
    """
    async with AsyncExitStack() as stack:
        # The balancer is stopped first: its requests still need the node.
        node = await stack.enter_async_context(
            running("node", plan.node, grace=plan.grace)
        )
        balancer = await stack.enter_async_context(
            running("balancer", plan.balancer, grace=plan.grace)
        )
        await first(_greeted(plan, greet), stop.wait(), node.ended(), balancer.ended())
        click.echo(STOPPING, err=True)


async def _greeted(plan: Plan, greet: Greet) -> None:
    try:
        async with asyncio.timeout(plan.load_seconds):
            models = await _until_served(plan.place)
    except TimeoutError:
        raise NotServing(
            f"no model was ready within {plan.load_seconds:g} s; `load_seconds` in the"
            " settings allows more"
        ) from None
    greet(models)
    await asyncio.Event().wait()


async def _until_served(place: Endpoint) -> Sequence[Model]:
    while not (models := await asyncio.to_thread(served, place)):  # noqa: ASYNC110 - another process has no event for us
        await asyncio.sleep(POLL_SECONDS)
    return models


def served(place: Endpoint) -> Sequence[Model]:
    """Return the models that can be called now, none while they load.

    Raises NotServing once it is certain that none can be served.
    """
    with suppress(NoAnswer):
        models: list[Model] = place.get("/v1/models")["data"]
        if models:
            return models
        for node in place.get("/edgeserve/v1/nodes"):
            _raise_hopeless(node["report"])
    return ()


def _raise_hopeless(report: Mapping[str, Any] | None) -> None:
    if report is None:
        return
    engines: list[Mapping[str, Any]] = report["engines"]
    if any(engine["state"] != "quarantined" for engine in engines):
        return
    reasons = [f"{engine['id']}: {engine.get('reason')}" for engine in engines]
    if reasons:
        raise NotServing("; ".join(reasons))
    if report.get("problems"):
        # The node has warned of each as it found it, on the same terminal.
        raise NotServing("nothing can be served; see its message above")
