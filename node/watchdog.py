"""Does a busy engine get anywhere? Pure: counters and a clock in, a verdict out.

No endpoint of llama.cpp tells of a decode that never returns: /health and /metrics stay
well. Only counters that stop while there is work do.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from node.engines.protocol import EngineSpec

PROGRESS = ("n_decode_total", "prompt_tokens_total", "tokens_predicted_total")
WORK = ("requests_processing", "requests_deferred")
PREFIX = "llamacpp:"
CALLS, READ = 0, 1
"""Which of PROGRESS count decode calls, and tokens of prompts."""

SHORTEST_SECONDS = 10.0
CALLS_MISSED = 20.0
"""An engine hangs after so long, and so many decode calls' time, without one."""

LOOK_SECONDS = 10.0
"""No two looks are further apart, unless this process itself is kept from working."""


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
    """The last counters, and since when they have stood still (seconds).

    `call` is the longest that a decode call has taken, or should take: None where
    nothing is known. `full` is how many tokens of prompts are enough to have had every
    kind of call once: a GPU may compile for minutes what it runs first.
    """

    since: float
    counters: Counters | None = None
    call: float | None = None
    full: float = 0.0
    looked: float = 0.0
    moved: float = 0.0
    """When the counters were first as they are."""

    def again(self, now: float) -> Watch:
        """Begin anew: there was no work."""
        return replace(self, since=now, counters=None, looked=now)

    def seen(
        self, counters: Counters | None, now: float, *, excused: bool = False
    ) -> Watch:
        """Take in what /metrics said now; None where it did not answer.

        `excused`: something else explains that it gets nowhere.
        """
        # Whoever looks so late has stood still himself.
        late = max(0.0, now - max(self.looked, self.since) - LOOK_SECONDS)
        kept = replace(self, since=now if excused else self.since + late, looked=now)
        if counters is None:
            return kept
        if counters.working and counters == self.counters:
            return kept
        call = self._longest_call(counters, now)
        return replace(kept, since=now, counters=counters, moved=now, call=call)

    def _longest_call(self, counters: Counters, now: float) -> float | None:
        """Learn how long a call takes from those between two looks at its work."""
        before = self.counters
        if self.call is None or before is None:
            return self.call
        calls = counters.done[CALLS] - before.done[CALLS]
        if calls < 1 or not (before.working and counters.working):
            return self.call
        return max(self.call, (now - self.moved) / calls)

    def still_seconds(self, now: float) -> float:
        """How long there has been work and no progress."""
        return now - self.since

    def patience(self, limit: float) -> float:
        """Return how many seconds it may stand still; `limit` where little is known."""
        known = self.counters is not None and self.counters.working
        if self.call is None or not known or not self._is_warm:
            return limit
        return min(limit, max(SHORTEST_SECONDS, CALLS_MISSED * self.call))

    @property
    def _is_warm(self) -> bool:
        return self.counters is not None and self.counters.done[READ] >= self.full


def watch_of(spec: EngineSpec, now: float, *, vision: bool) -> Watch:
    """Begin to watch an engine, with what is expected of it.

    Only where text alone is read and written do the counters move with every call: no
    counter shows how far an image has been looked at.
    """
    expected, launch = spec.expected, spec.launch
    text = spec.role == "generate" and not vision
    if not text or expected is None or min(expected.read, expected.write) <= 0:
        return Watch(now)
    call = max(launch.batch / expected.read, 1 / expected.write)
    return Watch(now, call=call, full=launch.batch)
