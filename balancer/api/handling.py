"""Inference handling: the handler of requests, and what it takes to answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing

from balancer.api.inference import InferenceHandler
from balancer.caches.drains import moving_caches
from balancer.clients.admission import Admission
from balancer.clients.forwarded import plain
from balancer.clients.limits import RateLimits
from balancer.clients.usage import ClientUsage
from balancer.discovery.node_client import NodeClient
from balancer.failover.moves import Mover
from balancer.failover.retry import RetryLoop
from balancer.failover.splice import policy_of
from balancer.failover.watchdog import Watchdog
from balancer.probes.continuation import continuing
from balancer.probes.template import TemplateProbe
from balancer.state import BalancerState
from balancer.telemetry.otlp import exporting
from balancer.telemetry.recorder import Trace
from edgeserve.config.settings import BalancerSettings
from edgeserve.runtime.background import background
from edgeserve.runtime.clock import ActiveClock


@asynccontextmanager
async def inference_handler(
    settings: BalancerSettings,
    shared: BalancerState,
    nodes: NodeClient,
    clock: ActiveClock,
    usage: ClientUsage,
    trace: Trace | None,
    clients: Admission,
) -> AsyncGenerator[InferenceHandler]:
    """Hold the handler, its watchdog and its probes for the length of the block."""
    templates = TemplateProbe(nodes)
    async with (
        exporting(settings.otlp) as spans,
        background() as tasks,
        continuing(shared, nodes) as continuations,
        moving_caches(shared, nodes) as caches,
    ):
        mover = Mover(shared, templates, tasks)
        with closing(Watchdog(shared, clock, mover.look)) as watch:
            retry = RetryLoop(
                state=shared,
                nodes=nodes,
                templates=templates,
                continuations=continuations,
                watchdog=watch,
                caches=caches,
                attempts=settings.attempts,
                patience=settings.queue_seconds,
            )
            yield InferenceHandler(
                state=shared,
                clients=clients,
                limits=RateLimits(shared.records.clock),
                usage=usage,
                policy=policy_of(settings),
                proxies=frozenset(map(plain, settings.trusted_proxies)),
                trace=trace,
                spans=spans,
                retry=retry,
            )
