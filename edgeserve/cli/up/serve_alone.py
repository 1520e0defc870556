"""One-machine service: runs a node and a balancer together, and ends both."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import click

from edgeserve.cli.client import Endpoint, NoAnswer
from edgeserve.errors import CommandError
from edgeserve.runtime.tasks import first_of
from edgeserve.runtime.tether import tethered

POLL_SECONDS = 0.1

STOPPING = "stopping; running answers may finish, a second Ctrl-C aborts them"

Model = Mapping[str, Any]
Greet = Callable[[Sequence[Model]], None]


FORCED_SECONDS = 3.0
"""Time for a child to exit after a second signal."""


class ChildEnded(CommandError):
    """A child ended that should run on; its own message is on the terminal."""

    def __init__(self, name: str, status: int) -> None:
        reason = f"with status {status}; see its message above"
        super().__init__(f"the {name} ended {reason if status else 'by itself'}")
        self.exit_status = status if status > 0 else 1


@dataclass(frozen=True)
class Child:
    """A running child process."""

    name: str
    process: Process

    async def ended(self) -> NoReturn:
        """Wait until it ends, and raise ChildEnded."""
        raise ChildEnded(self.name, await self.process.wait())


@asynccontextmanager
async def running(
    name: str, argv: Sequence[str], *, grace: float, speaks: bool = False
) -> AsyncGenerator[Child]:
    """Run a child for the length of the block; it has `grace` seconds to drain.

    It has a session of its own, so that Ctrl-C reaches it once, through this process.
    It gets SIGTERM too when this process is killed. Where it `speaks`, what it says on
    standard output is shown.
    """
    process = await asyncio.create_subprocess_exec(
        *tethered(argv, signal.SIGTERM),
        stdin=DEVNULL,
        stdout=None if speaks else DEVNULL,
        start_new_session=True,
    )
    try:
        yield Child(name, process)
    except asyncio.CancelledError:
        grace = FORCED_SECONDS
        raise
    finally:
        await _end(process, grace)


async def _end(process: Process, grace: float) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(grace):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class NotServing(CommandError):
    """The node runs, but cannot serve the models it was asked for."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The two commands, the balancer's address, and limits in seconds.

    `speaks`: the balancer says which machines ask to join.
    """

    node: Sequence[str]
    balancer: Sequence[str]
    place: Endpoint
    load_seconds: float
    grace: float
    speaks: bool = False


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
            running("balancer", plan.balancer, grace=plan.grace, speaks=plan.speaks)
        )
        await first_of(
            _greeted(plan, greet), stop.wait(), node.ended(), balancer.ended()
        )
        click.echo(STOPPING, err=True)


async def _greeted(plan: Plan, greet: Greet) -> None:
    try:
        async with asyncio.timeout(plan.load_seconds):
            while not (models := await asyncio.to_thread(served, plan.place)):  # noqa: ASYNC110 - another process has no event for us
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise NotServing(
            f"no model was ready within {plan.load_seconds:g} s; `load_seconds` in the"
            " settings allows more"
        ) from None
    greet(models)
    await asyncio.Event().wait()


def served(place: Endpoint) -> Sequence[Model]:
    """Return the models that are loaded, none while they load.

    Where none shall be, those that load when asked for. Raises NotServing once it is
    certain that none can be served.
    """
    with suppress(NoAnswer):
        models: list[Model] = place.get("/v1/models")["data"]
        by_state: dict[str, list[Model]] = {}
        for each in models:
            by_state.setdefault(each.get("state", "loaded"), []).append(each)
        if "loaded" in by_state or "loading" in by_state:
            return by_state.get("loaded", ())
        reports = [node["report"] for node in place.get("/edgeserve/v1/nodes")]
        if not any(_may_load(each) for each in reports if each):
            return tuple(models)
    return ()


def _may_load(report: Mapping[str, Any]) -> bool:
    """Whether a model that is not only loaded when it is asked for may still load.

    Raises NotServing, with the reason, once it is certain that none will.
    """
    wanted = [
        each
        for each in report["engines"]
        if each.get("pinned") or each["state"] != "absent"
    ]
    if any(each["state"] != "quarantined" for each in wanted):
        return True
    if wanted:
        reasons = (f"{each['id']}: {each.get('reason')}" for each in wanted)
        raise NotServing("; ".join(reasons))
    if report.get("problems"):
        # The node has warned of each as it found it, on the same terminal.
        raise NotServing("nothing can be served; see its message above")
    return False
