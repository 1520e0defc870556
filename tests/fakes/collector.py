"""A collector of traces that decodes OTLP with OpenTelemetry's own classes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Values = dict[str, Any]


@dataclass
class Collector:
    """The spans that have arrived, decoded and as they came; and about what service."""

    url: str = ""
    spans: list[Any] = field(default_factory=list[Any])
    raw: bytes = b""
    service: Values = field(default_factory=dict[str, Any])
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.Response:
        """Decode one export."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        body = await request.read()
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.service = values(resource.resource)
            for scope in resource.scope_spans:
                self.spans += scope.spans
        self._arrived.set()
        return web.Response()

    async def have(self, count: int) -> list[Any]:
        """Wait until so many spans have arrived."""
        while len(self.spans) < count:
            self._arrived.clear()
            await self._arrived.wait()
        return self.spans

    def root(self) -> Any:
        """Return the only span of a request."""
        (found,) = [span for span in self.spans if span.kind == 2]
        return found

    def attempts(self) -> list[Any]:
        """Return the spans of attempts in order."""
        found = [span for span in self.spans if span.kind == 3]
        return sorted(found, key=lambda span: values(span)["edgeserve.attempt"])


def values(span: Any) -> Values:
    """Return attributes as a mapping."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value"))
        for each in span.attributes
    }


@asynccontextmanager
async def collector() -> AsyncGenerator[Collector]:
    """Run it on loopback."""
    found = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", found.take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        found.url = f"http://{host}:{port}"
        yield found
    finally:
        await runner.cleanup()
