"""Live stream of the dashboard: each second, what has changed since the last.

Nothing is counted for it on the way of a request. A second of a page costs one look at
the fleet and the request log; without a page it costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from aiohttp import web

from balancer.api.events import HEADERS, WRITE_SECONDS
from balancer.api.models.listing import ModelRoutes
from balancer.api.models.overview import overview
from balancer.api.nodes import NodeRoutes
from balancer.api.pulls import pulls_of
from balancer.clients.admission import Admission
from balancer.dashboard.rates import Rates, TokensWritten
from balancer.failover.watchdog import AttemptWatchdog
from balancer.state import BalancerState
from balancer.telemetry.records import RequestRecord
from edgeserve.http.sse import write_event
from edgeserve.wire import encode

EVERY_SECONDS = 1.0

FIRST = 200
"""Requests that a page gets at its start."""

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class LiveStream:
    """The route. `attempts` are those that run; `clients` says who may still follow.

    Once `taken` is set, another process has the port, and pages go on there.
    """

    state: BalancerState
    nodes: NodeRoutes
    models: ModelRoutes
    attempts: Collection[AttemptWatchdog]
    clients: Admission
    taken: asyncio.Event

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """Send what is, then what has changed, until the page leaves or may not."""
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        follower = _Follower(self, Rates(self.state.records.clock()))
        follower.rates.measured(follower.rates.at, self.written(()))
        while not self.taken.is_set() and self.clients.still_admin(request.headers):
            frames = list(follower.frames())
            async with asyncio.timeout(WRITE_SECONDS):
                await response.write(b"".join(frames))
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_SECONDS):
                    await self.taken.wait()
        return response

    def written(self, ended: Collection[RequestRecord]) -> Iterator[TokensWritten]:
        """Yield how far each answer is, of those that run and those that have ended."""
        for each in self.attempts:
            if each.context is not None:
                record = each.context.record
                count = len(record.attempts)
                yield TokensWritten(record.id, count, each.key, each.texts)
        for record in ended:
            if (used := record.used) is not None:
                last = record.attempts[-1].send.to.key
                count = len(record.attempts)
                yield TokensWritten(record.id, count, last, used.answer, ended=True)

    def whole(self) -> dict[str, object]:
        """Return what is sent whole when it has changed, as its own route shows it."""
        current = self.state.current
        limits = self.models.orders.limits.all()
        return {
            "nodes": self.nodes.shown(),
            "models": overview(current.fleet, current.candidates, limits),
            "pulls": pulls_of(current.fleet),
            "speeds": list(self._speeds()),
        }

    def _speeds(self) -> Iterator[Json]:
        """Yield how fast each engine is for one stream, in tokens/s."""
        fleet_model = self.state.predictive.fleet_model
        for each in self.state.current.candidates:
            speed, known = fleet_model.speed(each), fleet_model.get(each.key)
            yield {
                "node": each.node_id,
                "engine": each.engine.id,
                "read": round(1 / speed.prefill, 1),
                "write": round(1 / speed.decode, 1),
                "measured": known is not None and known.learner.calibrated,
            }


@dataclass
class _Follower:
    """One page that follows, and what it knows."""

    stream: LiveStream
    rates: Rates
    _sent: dict[str, bytes] = field(default_factory=dict[str, bytes])
    _looked: float | None = None
    _events: int = 0

    def frames(self) -> Iterator[bytes]:
        """Yield the events of this second."""
        for topic, value in self.stream.whole().items():
            body = encode(value)
            if body != self._sent.get(topic):
                self._sent[topic] = body
                yield write_event(body, topic)
        changed = self._changed()
        if changed:
            shown = [record.shown(fully=False) for record in reversed(changed)]
            yield write_event(encode(shown), "requests")
        self._events, news = self.stream.models.events.since(self._events)
        if news:
            yield write_event(encode(news), "events")
        yield write_event(encode(self._now(changed)), "now")

    def _changed(self) -> list[RequestRecord]:
        """Return the requests that run, and those that have ended since the last look.

        The latest first.
        """
        records, before = self.stream.state.records, self._looked
        self._looked = records.clock()
        if before is None:
            return list(islice(records, FIRST))
        return [each for each in records if each.ended is None or each.ended >= before]

    def _now(self, changed: Collection[RequestRecord]) -> Json:
        state, before = self.stream.state, self.rates.at
        ended = [each for each in changed if each.ended and each.ended >= before]
        now, answers = state.records.clock(), self.stream.written(ended)
        rates = self.rates.measured(now, answers)
        return {
            "at": round(time.time(), 3),
            "running": state.in_flight.inside,
            "waiting": state.queue.waiting,
            "draining": state.in_flight.draining,
            "engines": [
                {
                    "node": key[0],
                    "engine": key[1],
                    "tokens_per_second": round(rate, 1),
                }
                for key, rate in rates.items()
            ],
        }
