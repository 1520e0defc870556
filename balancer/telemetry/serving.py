"""Serving metrics: those that dashboards and gateways know from vLLM, for each model.

Names, types and buckets are vLLM's (docs.vllm.ai/en/stable/usage/metrics), and so those
of the model server protocol of the Gateway API Inference Extension. Times are as the
client saw them, so that waiting in the balancer and failing over are part of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from balancer.fleet.engines import EngineCandidate
from balancer.prediction.fleet_model import FleetModel
from balancer.telemetry.prometheus import Histogram, Labels, family, timed
from balancer.telemetry.records import RequestRecord, TokensUsed

FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
PER_TOKEN = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
    10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
REQUEST = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
    120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
"""Upper bounds in seconds."""


@dataclass(frozen=True)
class ModelLoad:
    """A model now: requests at engines, requests that wait, share of its KV caches.

    `kv` is an estimate between 0 and 1: the tokens of the requests at work, among all
    that the slots have room for. Servers that do not tell their context are left out.
    """

    running: int
    waiting: int
    kv: float


@dataclass
class _Served:
    """What was served of one model since the start."""

    first: Histogram = field(default_factory=lambda: Histogram(FIRST_TOKEN))
    between: Histogram = field(default_factory=lambda: Histogram(PER_TOKEN))
    mean: Histogram = field(default_factory=lambda: Histogram(PER_TOKEN))
    queued: Histogram = field(default_factory=lambda: Histogram(REQUEST))
    whole: Histogram = field(default_factory=lambda: Histogram(REQUEST))
    prompt: int = 0
    cached: int = 0
    answer: int = 0
    answered: int = 0
    left: int = 0


def model_loads(
    candidates: Iterable[tuple[EngineCandidate, int]],
    fleet_model: FleetModel,
    waiting: Iterable[str],
) -> dict[str, ModelLoad]:
    """Return each model's load. Candidates come with the slots that are taken there.

    `waiting` has the model of each request that waits.
    """
    waits, running = Counter(waiting), Counter[str]()
    held, room = Counter[str](), Counter[str]()
    for candidate, busy in candidates:
        model = candidate.engine.model
        running[model] += busy
        engine = fleet_model.get(candidate.key)
        if engine is not None and engine.context:
            requests = engine.load.requests.values()
            held[model] += sum(int(each.tokens + each.answer) for each in requests)
            room[model] += engine.slots * engine.context
    return {
        model: ModelLoad(
            running[model], waits[model], min(1.0, held[model] / max(1, room[model]))
        )
        for model in {*running, *waits} - {""}
    }


class ServingMetrics:
    """Counts and times of each model since the start."""

    def __init__(self) -> None:
        self._models: dict[str, _Served] = {}

    def answered(self, record: RequestRecord, used: TokensUsed) -> None:
        """Count a request that an engine was asked, and that has ended."""
        found = self._models.get(used.model)
        if found is None:
            found = self._models[used.model] = _Served()
        found.prompt += used.prompt
        found.cached += used.cached
        found.answer += used.answer
        found.queued.observe(record.waited)
        if record.first_byte is not None:
            found.first.observe(record.first_byte - record.arrived)
        if record.ended is not None:
            found.whole.observe(record.ended - record.arrived)
        if not record.answered:
            found.left += 1
            return
        found.answered += 1
        timings = record.attempts[-1].timings
        if timings is not None and timings.predicted > 1 and timings.predicted_ms > 0:
            count = timings.predicted - 1
            each = timings.predicted_ms / 1000 / count
            found.mean.observe(each)
            found.between.observe(each, count)

    def render(self, loads: Mapping[str, ModelLoad]) -> Iterator[str]:
        """Return lines of the text format; `loads` are the models of the fleet."""
        yield from _gauges(loads)
        for name, text, part in (
            ("prompt_tokens_total", "Tokens of prompts.", "prompt"),
            ("generation_tokens_total", "Tokens of answers.", "answer"),
            (
                "prefix_cache_queries_total",
                "Tokens of prompts that were looked up in prefix caches.",
                "prompt",
            ),
            (
                "prefix_cache_hits_total",
                "Tokens of prompts that were found there.",
                "cached",
            ),
        ):
            yield from family(f"vllm:{name}", "counter", text, self._each(part))
        yield from self._ended()
        for name, text, part in (
            ("time_to_first_token_seconds", "Arrival to first content.", "first"),
            (
                "inter_token_latency_seconds",
                "Time between tokens; all of an answer count with its mean.",
                "between",
            ),
            (
                "request_time_per_output_token_seconds",
                "Mean time between the tokens of an answer.",
                "mean",
            ),
            ("request_queue_time_seconds", "Time spent waiting for a slot.", "queued"),
            ("e2e_request_latency_seconds", "Arrival to end.", "whole"),
        ):
            yield from timed(f"vllm:{name}", text, self._each(part))

    def _each(self, part: str) -> dict[Labels, Any]:
        return {_of(model): getattr(each, part) for model, each in self._models.items()}

    def _ended(self) -> Iterable[str]:
        values = dict[Labels, int]()
        for model, found in self._models.items():
            for reason, count in (("stop", found.answered), ("abort", found.left)):
                values[*_of(model), ("finished_reason", reason)] = count
        text = "Requests that ended: `abort` without a whole answer."
        return family("vllm:request_success_total", "counter", text, values)


def _gauges(loads: Mapping[str, ModelLoad]) -> Iterator[str]:
    for name, text, part in (
        ("num_requests_running", "Requests at engines.", "running"),
        ("num_requests_waiting", "Requests that wait in the balancer.", "waiting"),
        ("kv_cache_usage_perc", "Share of the KV caches in use, estimated.", "kv"),
    ):
        values = {_of(model): getattr(load, part) for model, load in loads.items()}
        yield from family(f"vllm:{name}", "gauge", text, values)


def _of(model: str) -> Labels:
    return (("model_name", model),)
