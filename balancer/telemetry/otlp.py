"""OTLP: delivers spans to an OpenTelemetry collector, from a thread of its own.

A collector that does not answer costs spans and now and then a line in the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager

from balancer.telemetry.spans import SpanWriter
from edgeserve import __version__
from edgeserve.errors import SettingsError

log = logging.getLogger(__name__)

VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

TRACES = "/v1/traces"

MISSING = "the extra for traces is not installed; `pip install '.[otel]'` adds it"

EVERY = 60.0
"""Seconds between two lines about a collector that does not answer."""

FLUSH_SECONDS = 3.0
"""How long the last spans may take when the balancer ends."""

DELAY_MS = 1000.0
"""How long a span waits for others before it is sent."""


@asynccontextmanager
async def exporting(
    url: str, environ: Mapping[str, str] = os.environ
) -> AsyncGenerator[SpanWriter | None]:
    """Deliver spans for the length of the block; None where no collector is named.

    Raises SettingsError where one is, but the extra is missing.
    """
    target = endpoint(url, environ)
    if target is None or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http import trace_exporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        if url:
            raise SettingsError(f"otlp is {url!r}, but {MISSING}") from error
        log.warning("no traces: %s", MISSING)
        yield None
        return
    about = {"service.name": "edgeserve", "service.version": __version__}
    if "OTEL_SERVICE_NAME" in environ:
        del about["service.name"]
    with _quietly(target):
        exporter = trace_exporter.OTLPSpanExporter(target)
        provider = TracerProvider(
            resource=Resource.create(about), shutdown_on_exit=False
        )
        provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=DELAY_MS)
        )
        try:
            yield SpanWriter(provider.get_tracer("edgeserve", __version__))
        finally:
            await _flushed(provider.shutdown, exporter.shutdown)


def endpoint(url: str, environ: Mapping[str, str]) -> str | None:
    """Return where traces go: the setting, else OpenTelemetry's own variables."""
    traces, base = (environ.get(each, "") for each in VARIABLES)
    if url:
        path = "" if url.rstrip("/").endswith(TRACES) else TRACES
        return url.rstrip("/") + path
    return traces or (base.rstrip("/") + TRACES if base else None)


async def _flushed(end: Callable[[], None], cut: Callable[[], None]) -> None:
    """Send what is left, for a bounded time; then cut off what still waits."""
    thread = threading.Thread(target=end, name="otlp-flush", daemon=True)
    thread.start()
    await asyncio.to_thread(thread.join, FLUSH_SECONDS)
    if thread.is_alive():
        log.warning("the last traces were not delivered within %g s", FLUSH_SECONDS)
        cut()


class _Complaints(logging.Handler):
    """Passes on what the exporter complains of, one line a minute."""

    def __init__(self, target: str) -> None:
        super().__init__(logging.WARNING)
        self._target = target
        self._next = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY
        what = record.getMessage().partition("\n")[0][:300]
        log.warning("traces do not reach %s: %s", self._target, what)


@contextmanager
def _quietly(target: str) -> Generator[None]:
    """Limit what OpenTelemetry logs, for the length of the block."""
    theirs, ours = logging.getLogger("opentelemetry"), _Complaints(target)
    before = theirs.propagate
    theirs.addHandler(ours)
    theirs.propagate = False
    try:
        yield
    finally:
        theirs.removeHandler(ours)
        theirs.propagate = before
