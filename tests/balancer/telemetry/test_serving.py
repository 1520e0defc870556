"""Dashboards and gateways for vLLM find the names, types and buckets that they know."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from balancer.dialects.timings import Timings
from balancer.prediction.prefix_cache import PrefixCacheIndex
from balancer.telemetry.prometheus import Histogram
from balancer.telemetry.records import AttemptRecord, RequestRecord, TokensUsed
from balancer.telemetry.serving import ModelLoad, ServingMetrics, model_loads
from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.balancer.engine_models import an_engine_model
from tests.fakes.node import fake_node

MODEL = '{model_name="tiny"'


def lines(metrics: ServingMetrics, **loads: ModelLoad) -> dict[str, float]:
    found = [each for each in metrics.render(loads) if not each.startswith("#")]
    return {name: float(value) for name, _, value in (e.rpartition(" ") for e in found)}


def record(*, ended: bool = True) -> RequestRecord:
    found = RequestRecord("1", "/v1/chat/completions", "tiny", "", 10.0, 0.0)
    found.waited, found.first_byte, found.ended = 0.5, 11.0, 13.0
    timings = Timings(
        cached=30, prompt=10, prompt_ms=400, predicted=21, predicted_ms=2000
    )
    outcome = "answered" if ended else "broke off: lost"
    found.attempts = [AttemptRecord(None, 10.5, timings=timings, outcome=outcome)]  # type: ignore[arg-type]
    return found


def test_an_answer_is_counted_in_tokens_and_in_seconds() -> None:
    metrics = ServingMetrics()
    metrics.answered(record(), TokensUsed("tiny", prompt=40, cached=30, answer=21))

    found = lines(metrics)
    assert found[f"vllm:prompt_tokens_total{MODEL}}}"] == 40
    assert found[f"vllm:prefix_cache_hits_total{MODEL}}}"] == 30
    assert found[f"vllm:generation_tokens_total{MODEL}}}"] == 21
    assert found[f"vllm:time_to_first_token_seconds_sum{MODEL}}}"] == 1.0
    assert found[f"vllm:e2e_request_latency_seconds_sum{MODEL}}}"] == 3.0
    assert found[f"vllm:request_queue_time_seconds_sum{MODEL}}}"] == 0.5
    assert found[f"vllm:inter_token_latency_seconds_count{MODEL}}}"] == 20
    assert found[f"vllm:request_time_per_output_token_seconds_sum{MODEL}}}"] == 0.1
    assert found[f'vllm:request_success_total{MODEL},finished_reason="stop"}}'] == 1


def test_an_answer_that_broke_off_is_no_success_and_has_no_speed() -> None:
    metrics = ServingMetrics()
    metrics.answered(record(ended=False), TokensUsed("tiny", prompt=40))

    found = lines(metrics)
    assert found[f'vllm:request_success_total{MODEL},finished_reason="stop"}}'] == 0
    assert found[f'vllm:request_success_total{MODEL},finished_reason="abort"}}'] == 1
    assert found[f"vllm:inter_token_latency_seconds_count{MODEL}}}"] == 0


def test_a_time_falls_into_the_first_bucket_that_holds_it() -> None:
    times = Histogram((0.1, 1.0))
    for seconds in (0.1, 0.5, 2.0):
        times.observe(seconds)

    assert list(times.lines("x", (("a", "b"),))) == [
        'x_bucket{a="b",le="0.1"} 1',
        'x_bucket{a="b",le="1.0"} 2',
        'x_bucket{a="b",le="+Inf"} 3',
        'x_sum{a="b"} 2.600000',
        'x_count{a="b"} 3',
    ]


@pytest.mark.parametrize(("context", "share"), [(1500, 0.1), (0, 0.0)])
def test_the_share_of_the_caches_is_of_those_whose_size_is_known(
    context: int, share: float
) -> None:
    engine = an_engine_model(PrefixCacheIndex(), "a")
    engine.context = context
    engine.load.requests[0] = cast("Any", SimpleNamespace(tokens=100, answer=50))
    candidate = SimpleNamespace(engine=SimpleNamespace(model="tiny"), key=("a", "b"))
    fleet_model = SimpleNamespace(get=lambda _: engine)

    loads = model_loads([(cast("Any", candidate), 1)], cast("Any", fleet_model), [])

    assert loads == {"tiny": ModelLoad(running=1, waiting=0, kv=share)}


@pytest.mark.parametrize("policy", ["predict", "least-busy"])
async def test_the_endpoint_has_them_once_an_answer_has_come(policy: str) -> None:
    async with fake_node("pi") as node, endpoint(node, policy=policy) as balancer:
        assert (await balancer.post(CHAT, chat())).status == 200
        text = (await balancer.get("/metrics")).body.decode()

    typed = dict(re.findall(r"# TYPE (vllm:\S+) (\S+)", text))
    assert typed["vllm:time_to_first_token_seconds"] == "histogram"
    assert typed["vllm:kv_cache_usage_perc"] == "gauge"
    assert 'vllm:num_requests_running{model_name="small"} 0' in text
    assert 'vllm:time_to_first_token_seconds_count{model_name="small"} 1' in text
    assert len(re.findall(r"^# TYPE (\S+)", text, re.M)) == len(
        set(re.findall(r"^# TYPE (\S+)", text, re.M))
    )
