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
from edgeserve.openai import SMALLEST
from edgeserve.runtime.background import Tasks, background, declared

SECONDS = 20.0
"""Longest wait for a probe's answer: one token, even on a slow machine."""

PAUSE = 0.25
"""Seconds between looks for engines to probe."""

PROBER = declared("prober")
PROBE = declared("probe", "never")

TOKENIZE: tuple[str, dict[str, object]] = ("/tokenize", {"content": "1"})
"""The probe of an engine that has none of the abilities in `SMALLEST`."""


class LivenessProber:
    """Sends probes through the nodes, as users' requests go."""

    def __init__(
        self,
        breakers: CircuitBreakers,
        nodes: NodeClient,
        seconds: float = SECONDS,
    ) -> None:
        self._breakers = breakers
        self._nodes = nodes
        self._seconds = seconds

    async def run(self, tasks: Tasks) -> None:
        """Probe engines when they are due, for ever."""
        while True:
            for each in self._breakers.due():
                tasks.start(PROBE, partial(self._probe, each), each.node)
            self._breakers.tick()
            await asyncio.sleep(PAUSE)

    async def _probe(self, to: EngineCandidate) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                status = await self._ask(to)
        except (TimeoutError, NodeLost):
            status = 0
        except Exception:
            self._breakers.probed(to.key, well=False)
            raise
        if status != 429:  # its slots are busy: their requests will show how it is
            self._breakers.probed(to.key, well=status == 200)

    async def _ask(self, to: EngineCandidate) -> int:
        can = to.engine.abilities
        path, fields = next(
            (SMALLEST[each] for each in SMALLEST if each in can), TOKENIZE
        )
        body = msgspec.json.encode({"model": to.engine.variant, **fields})
        async with self._nodes.probe(to, path, body) as answer:
            await answer.read()
            return answer.status


@asynccontextmanager
async def probing(prober: LivenessProber) -> AsyncGenerator[None]:
    """Probe for the length of the block."""
    async with background() as tasks:
        tasks.start(PROBER, lambda: prober.run(tasks))
        yield
