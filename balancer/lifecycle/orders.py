"""Orders: tell a node to load or unload an engine, and understand its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from balancer.discovery.node_client import NodeClient
from balancer.lifecycle.placement import Load, Unload
from edgeserve.errors import EdgeserveError
from edgeserve.openai import code, message, retry_after
from edgeserve.orders.engines import LOAD, UNLOAD, LoadEngine, UnloadEngine
from edgeserve.wire import encode

ANSWER_SECONDS = 10.0
"""A node takes an order at once, and then works on it."""

BUSY = "engines_busy"
SHORT = "does_not_fit"

LATER_SECONDS = 2.0
"""When a node is asked again that could not be reached, or whose engines are busy."""

MOST_SECONDS = 999
"""A node that names a longer time is asked again as if it had named none."""


@dataclass(frozen=True, slots=True)
class TryLater:
    """The node may take it in so many seconds. `busy`: engines in its way are."""

    seconds: float
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The node cannot do it, and says why. `short`: for want of memory."""

    why: str
    short: bool = False


async def send_order(
    nodes: NodeClient, wish: Load | Unload
) -> TryLater | Refused | None:
    """Send it; None where the node has taken it."""
    engine = wish.to.engine.id
    if isinstance(wish, Load):
        path = LOAD
        body = encode(LoadEngine(engine=engine, drain=wish.drain, why=wish.why))
    else:
        path, body = UNLOAD, encode(UnloadEngine(engine=engine, why=wish.why))
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            nodes.order(wish.to.origin, path, body) as answer,
        ):
            return understood(answer.status, answer.headers, await answer.read())
    except (EdgeserveError, TimeoutError):
        return TryLater(LATER_SECONDS)


def understood(
    status: int, headers: Mapping[str, str], body: bytes
) -> TryLater | Refused | None:
    """Return what an answer means. Pure."""
    if status < 300:
        return None
    busy = code(body) == BUSY
    if busy or status in {429, 503}:
        after = retry_after(headers)
        usable = after is not None and after <= MOST_SECONDS
        return TryLater(float(after or 0) if usable else LATER_SECONDS, busy)
    why = message(body) or f"its node answered {status}"
    return Refused(why, short=code(body) == SHORT)
