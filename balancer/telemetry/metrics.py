"""Metrics: counts and times in Prometheus format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from balancer.fleet.members import Fleet
from balancer.prediction.energy.joules import EnergyBook
from balancer.telemetry.prometheus import Histogram, Labels, family, timed
from balancer.telemetry.records import RequestRecord, TokensUsed, outcome_of
from balancer.telemetry.serving import ModelLoad, ServingMetrics
from edgeserve.runtime.background import KINDS, failures

BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Upper bounds in seconds: from a cached answer on a GPU to a long one on a Pi."""


class Metrics:
    """Counters of requests and attempts since the start."""

    def __init__(self) -> None:
        self._requests: Counter[Labels] = Counter()
        self._attempts: Counter[Labels] = Counter()
        self._used: dict[tuple[str, str], list[int]] = {}
        self._retried = self._resumed = self._moved = 0
        self._serving = ServingMetrics()
        self._waited = Histogram(BUCKETS)
        self._first_byte = Histogram(BUCKETS)
        self._lasted = Histogram(BUCKETS)

    def answered(self, record: RequestRecord) -> None:
        """Count a request that has ended, in whatever way."""
        status = str(record.status or 499)
        self._requests[("path", record.path), ("status", status)] += 1
        for each in record.attempts:
            result = _result(each.outcome)
            self._attempts[("node", each.send.to.node), ("outcome", result)] += 1
            self._moved += result == "moved"
            self._resumed += each.resumes
        self._retried += max(0, len(record.attempts) - 1)
        self._waited.observe(record.waited)
        if record.first_byte is not None:
            self._first_byte.observe(record.first_byte - record.arrived)
        if record.ended is not None:
            self._lasted.observe(record.ended - record.arrived)

    def used(self, key: str, record: RequestRecord, used: TokensUsed) -> None:
        """Count what a request of a key has used."""
        self._serving.answered(record, used)
        found = self._used.get((key, used.model))
        if found is None:
            found = self._used[key, used.model] = [0, 0, 0]
        found[0] += 1
        found[1] += used.prompt
        found[2] += used.answer

    def _again(self) -> Iterable[str]:
        """Render how often a request was sent to more than one engine."""
        for name, text, count in (
            ("retried_total", "Attempts past the first.", self._retried),
            (
                "resumed_total",
                "Answers that went on at another engine.",
                self._resumed,
            ),
            (
                "moved_total",
                "Attempts that were left for a faster engine.",
                self._moved,
            ),
        ):
            yield from _family(name, "counter", text, {(): count})

    def render(
        self,
        fleet: Fleet,
        waiting: int,
        running: int,
        loads: Mapping[str, ModelLoad],
        energy: EnergyBook,
    ) -> str:
        """Return the text format, version 0.0.4."""
        lines = [
            *_family("requests_total", "counter", "Requests answered.", self._requests),
            *_family(
                "attempts_total", "counter", "Requests sent to nodes.", self._attempts
            ),
            *_family(
                "key_requests_total",
                "counter",
                "Requests of each key that an engine was asked.",
                {_of(*each): counts[0] for each, counts in self._used.items()},
            ),
            *_family(
                "key_tokens_total",
                "counter",
                "Tokens of each key, of prompts and answers.",
                {
                    (*_of(*each), ("part", part)): counts[at]
                    for each, counts in self._used.items()
                    for at, part in ((1, "prompt"), (2, "answer"))
                },
            ),
            *self._again(),
            *_family(
                "requests_running", "gauge", "Inside, waiting or not.", {(): running}
            ),
            *_family("requests_waiting", "gauge", "Waiting for a slot.", {(): waiting}),
            *_family("nodes", "gauge", "Nodes by state.", _nodes(fleet)),
            *_family(
                "engine_slots", "gauge", "Slots by engine.", _slots(fleet, "slots")
            ),
            *_family("engine_busy", "gauge", "Slots in use.", _slots(fleet, "busy")),
            *_family(
                "node_watts", "gauge", "Watts that machines measure.", _watts(fleet)
            ),
            *_family(
                "joules_per_token",
                "gauge",
                "Joules of a token, above the idle machine.",
                _joules(fleet, energy),
            ),
            *_family(
                "background_failures_total",
                "counter",
                "Failures of the balancer's own background tasks; they are restarted.",
                _failed(),
            ),
            *_family(
                "node_background_failures_total",
                "counter",
                "Failures of nodes' background tasks; they are restarted.",
                _failed_at(fleet),
            ),
            *_timed("wait_seconds", "Time spent waiting for a slot.", self._waited),
            *_timed(
                "first_byte_seconds", "Arrival to first content.", self._first_byte
            ),
            *_timed("request_seconds", "Arrival to end.", self._lasted),
            *self._serving.render(loads),
        ]
        return "\n".join(lines) + "\n"


def _result(outcome: str | None) -> str:
    found = outcome_of(outcome)
    return found if found in {"answered", "moved"} else "failed"


def _of(key: str, model: str) -> Labels:
    return ("key", key), ("model", model)


def _family(
    name: str, kind: str, text: str, values: Mapping[Labels, float]
) -> Iterator[str]:
    return family(f"edgeserve_{name}", kind, text, values)


def _timed(name: str, text: str, times: Histogram) -> Iterable[str]:
    return timed(f"edgeserve_{name}", text, {(): times})


def _nodes(fleet: Fleet) -> Counter[Labels]:
    return Counter(((("state", node.state)),) for node in fleet.nodes)


def _failed() -> dict[Labels, int]:
    """Return a count for every kind of task: a rate needs a first value."""
    return {(("task", name),): failures.counts.get(name, 0) for name in KINDS}


def _failed_at(fleet: Fleet) -> dict[Labels, int]:
    return {
        (("node", node.name), ("task", task)): count
        for node in fleet.nodes
        for task, count in node.report.failures.items()
    }


def _watts(fleet: Fleet) -> dict[Labels, float]:
    found = {
        node.name: node.report.hardware.power.watts
        for node in fleet.nodes
        if node.state != "asleep"
    }
    return {
        (("node", name),): watts for name, watts in found.items() if watts is not None
    }


def _joules(fleet: Fleet, energy: EnergyBook) -> dict[Labels, float]:
    return {
        (("node", node.name), ("engine", engine.id), ("part", part)): value
        for node in fleet.nodes
        for engine in node.report.engines
        if (found := energy.energy((node.id, engine.id))) is not None
        for part, value in (("read", found.read), ("write", found.write))
    }


def _slots(fleet: Fleet, what: str) -> dict[Labels, int]:
    return {
        (("node", node.name), ("engine", engine.id)): getattr(engine, what)
        for node in fleet.nodes
        for engine in node.report.engines
    }
