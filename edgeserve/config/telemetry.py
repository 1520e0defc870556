"""Telemetry settings: what a balancer records of its requests, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeserve.config.limits import setting
from edgeserve.config.values import a_url


@dataclass(frozen=True, kw_only=True)
class TelemetrySettings:
    """The settings of a balancer that concern traces. None has any content."""

    SECTION: ClassVar[str] = ""

    record: Path | None = setting(
        None,
        "File to which a trace for `edgeserve simulate` is appended: sizes, times and"
        " keyed hashes of requests, no content.",
    )
    otlp: str = setting(
        "",
        "URL of an OpenTelemetry collector (OTLP over HTTP), such as"
        " http://collector:4318, for a span of each request and each attempt, without"
        " content. Needs the extra `otel`. Default: the variable"
        " OTEL_EXPORTER_OTLP_ENDPOINT, else none.",
    )

    def check_telemetry(self) -> None:
        """Refuse what is no URL. Raises WrongValue."""
        if self.otlp:
            a_url(self, "otlp", self.otlp)
