"""Does a busy engine get anywhere? Pure: counters and a clock in, a verdict out.

No endpoint of llama.cpp tells of a decode that never returns: /health and /metrics stay
well. Only counters that stop while there is work do.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PROGRESS = ("n_decode_total", "prompt_tokens_total", "tokens_predicted_total")
WORK = ("requests_processing", "requests_deferred")
PREFIX = "llamacpp:"


@dataclass(frozen=True)
class Counters:
    """What /metrics says: how much was done, and whether there is work.

    `requests` is how many there are, in slots or waiting for one.
    """

    done: tuple[float, ...]
    working: bool
    requests: float = field(default=0.0, compare=False)


def parse(metrics: str) -> Counters:
    """Read /metrics; a counter that is missing counts as 0."""
    values: dict[str, float] = {}
    for line in metrics.splitlines():
        if line.startswith(PREFIX):
            name, _, value = line.removeprefix(PREFIX).partition(" ")
            values[name] = _number(value)
    done = tuple(values.get(name, 0.0) for name in PROGRESS)
    requests = sum(values.get(name, 0.0) for name in WORK)
    return Counters(done, requests > 0, requests)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


@dataclass(frozen=True)
class Watch:
    """The last counters, and since when they have stood still (seconds)."""

    since: float
    counters: Counters | None = None

    def seen(self, counters: Counters | None, now: float) -> Watch:
        """Take in what /metrics said now; None where it did not answer."""
        if counters is None:
            return self
        still = counters.working and counters == self.counters
        return Watch(self.since if still else now, counters)

    def still_seconds(self, now: float) -> float:
        """How long there has been work and no progress."""
        return now - self.since
