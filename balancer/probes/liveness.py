"""Liveness probes: one-token requests that close an open circuit breaker.

`/health` is not enough: it answers 200 while every generation fails or hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import msgspec

from balancer.discovery.node_client import NodeClient
from balancer.fleet.engines import EngineCandidate
from balancer.health.breaker import CircuitBreakers
from edgeserve.errors import NodeLost
from edgeserve.openai import SMALLEST, SMALLEST_OF_SERVERS
from edgeserve.runtime.background import Tasks, background, declared
from edgeserve.servers.requests import called

SECONDS = 20.0
"""Longest wait for a probe's answer: one token, even on a slow machine."""

PAUSE = 0.25
"""Seconds between looks for engines to probe."""

PROBER = declared("prober")
PROBE = declared("probe", "never")

TOKENIZE: tuple[str, dict[str, object]] = ("/tokenize", {"content": "1"})
"""The probe of an engine that has none of the abilities in `SMALLEST`."""


@asynccontextmanager
async def probing(breakers: CircuitBreakers, nodes: NodeClient) -> AsyncGenerator[None]:
    """Send probes through the nodes, as users' requests go, while the block runs."""
    async with background() as tasks:
        tasks.start(PROBER, lambda: _probe_due(breakers, nodes, tasks))
        yield


async def _probe_due(
    breakers: CircuitBreakers, nodes: NodeClient, tasks: Tasks
) -> None:
    """Probe engines when they are due, for ever."""
    while True:
        for each in breakers.due():
            tasks.start(PROBE, partial(_probe, breakers, nodes, each), each.node)
        breakers.tick()
        await asyncio.sleep(PAUSE)


async def _probe(
    breakers: CircuitBreakers, nodes: NodeClient, to: EngineCandidate
) -> None:
    try:
        async with asyncio.timeout(SECONDS):
            status = await _ask(nodes, to)
    except (TimeoutError, NodeLost):
        status = 0
    except Exception:
        breakers.probed(to.key, well=False)
        raise
    if status != 429:  # its slots are busy: their requests will show how it is
        breakers.probed(to.key, well=status == 200)


async def _ask(nodes: NodeClient, to: EngineCandidate) -> int:
    can = to.engine.abilities
    is_server = to.engine.kind == "server"
    known = SMALLEST_OF_SERVERS if is_server else SMALLEST
    model = called(to.engine) if is_server else to.engine.variant
    path, fields = next((known[each] for each in known if each in can), TOKENIZE)
    body = msgspec.json.encode({"model": model, **fields})
    async with nodes.probe(to, path, body) as answer:
        await answer.read()
        return answer.status
