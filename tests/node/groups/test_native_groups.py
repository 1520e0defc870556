"""Real groups: SmolLM2 over three nodes on loopback, each member lost in turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from edgeserve.errors import EdgeserveError
from edgeserve.wire import NodeReport
from tests.native import native
from tests.node.groups.grouped import group
from tests.node.groups.real import VARIANT, RealNode

pytestmark = [native, pytest.mark.engine]

GROUP = f"{VARIANT}@group"
BOUND = 20.0
"""Seconds within which the loss of any member has ended the engine, and every request;
on a busy machine, much more than the six that a silent member is given."""


def lost(report: NodeReport) -> bool:
    found = group(report)
    return found is None or found.state not in {"ready", "busy"}


def alone(report: NodeReport) -> bool:
    """Whether the head serves the model by itself, too."""
    return any(e.id == VARIANT and e.state == "ready" for e in report.engines)


async def outcome(head: RealNode) -> str:
    """Ask for a long answer; return how that ended."""
    try:
        await head.complete(GROUP, 2000)
    except (EdgeserveError, AssertionError, OSError) as error:
        return repr(error)
    return "whole"


async def losing(head: RealNode, lose: Callable[[], object]) -> tuple[str, float]:
    """Lose something during a request; return its outcome, and how long it took."""
    asking = asyncio.create_task(outcome(head))
    await head.until(
        lambda report: (group(report) or report).state == "busy" or _busy(report)
    )
    began = time.monotonic()
    lose()
    async with asyncio.timeout(BOUND):
        ended = await asking
        await head.until(lost)
    return ended, time.monotonic() - began


def _busy(report: NodeReport) -> bool:
    found = group(report)
    return found is not None and found.busy > 0
