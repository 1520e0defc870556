"""Traces reach a real receiver of OTLP, and have no content."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from importlib.util import find_spec

import pytest

from balancer.telemetry import otlp
from balancer.telemetry.otlp import endpoint as target_of
from balancer.telemetry.otlp import exporting
from balancer.telemetry.records import outcome_of
from balancer.telemetry.spans import operation_of
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import SettingsError
from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.fakes.collector import collector, values
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.patience import PATIENCE

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
SECRET = "a word that no trace may have"

NEEDS_EXTRA = pytest.mark.skipif(
    find_spec("opentelemetry") is None,
    reason="the extra `otel` is not installed",
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "DELAY_MS", 20.0)
    for name in otlp.VARIABLES:
        monkeypatch.delenv(name, raising=False)


@NEEDS_EXTRA
async def test_a_request_that_fails_over_is_one_span_with_its_attempts_inside() -> None:
    async with (
        collector() as traces,
        fake_node("a-bad", Behaviour(fault="reset")) as bad,
        fake_node("b-well") as well,
        endpoint(bad, well, otlp=traces.url) as balancer,
    ):
        answer = await balancer.post(CHAT, chat(SECRET, max_tokens=3), PARENT)
        async with asyncio.timeout(PATIENCE):
            await traces.have(3)

    root, (first, second) = traces.root(), traces.attempts()
    found = values(root)
    assert answer.status == 200
    assert root.name == "chat small"
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, SPAN)
    assert first.parent_span_id == second.parent_span_id == root.span_id
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.request.model"] == "small"
    assert found["gen_ai.usage.output_tokens"] == 3
    assert found["gen_ai.usage.input_tokens"] > 0
    assert found["http.response.status_code"] == 200
    assert found["edgeserve.failover"] is True
    assert found["edgeserve.attempts"] == 2
    assert found["edgeserve.queue.seconds"] >= 0
    assert found["edgeserve.first_token.seconds"] > 0
    assert found["edgeserve.request.id"] == answer.headers["x-edgeserve-request-id"]
    assert [values(each)["edgeserve.node"] for each in (first, second)] == [
        "a-bad",
        "b-well",
    ]
    assert [values(each)["edgeserve.outcome"] for each in (first, second)] == [
        "failed",
        "answered",
    ]
    assert values(second)["server.port"] == int(well.url.rpartition(":")[2])
    assert root.start_time_unix_nano <= first.start_time_unix_nano
    assert first.end_time_unix_nano <= second.start_time_unix_nano
    assert second.end_time_unix_nano <= root.end_time_unix_nano
    assert traces.service["service.name"] == "edgeserve"
    assert abs(root.start_time_unix_nano / 1e9 - time.time()) < 300


@NEEDS_EXTRA
async def test_the_predicted_time_stands_beside_the_actual_one() -> None:
    async with collector() as traces:
        async with fake_node("a") as node, endpoint(node, otlp=traces.url) as balancer:
            for words in ("one", "two", "three"):
                await balancer.post(CHAT, chat(words, max_tokens=3, stream=True))

        latest = max(traces.spans, key=lambda span: span.start_time_unix_nano)

    found = values(latest)
    assert found["edgeserve.first_token.predicted_seconds"] > 0
    assert found["edgeserve.first_token.seconds"] > 0


@NEEDS_EXTRA
async def test_no_text_of_prompt_or_answer_is_in_a_trace() -> None:
    async with (
        collector() as traces,
        fake_node("a", Behaviour(fault="break", fault_tokens=2)) as bad,
        fake_node("b") as well,
        endpoint(bad, well, otlp=traces.url) as balancer,
    ):
        await balancer.post(CHAT, chat(SECRET, max_tokens=4, stream=True))
        await balancer.post(CHAT, chat("hi", model=SECRET))
        await balancer.post(CHAT, chat("hi", grammar=SECRET))
        async with asyncio.timeout(PATIENCE):
            await traces.have(3)

    assert SECRET.encode() not in traces.raw
    assert b"w0" not in traces.raw
    assert b"chat" in traces.raw


@NEEDS_EXTRA
async def test_a_refused_request_is_an_error_with_its_code() -> None:
    async with collector() as traces:
        async with (
            fake_node("a") as node,
            endpoint(node, otlp=traces.url) as balancer,
        ):
            await balancer.post(CHAT, chat(model="unheard-of"))

        # The end of the balancer has delivered it.
        root = traces.root()

    assert values(root)["error.type"] == "model_not_found"
    assert root.status.code == 2
    assert "gen_ai.request.model" not in values(root)


@NEEDS_EXTRA
async def test_a_collector_that_does_not_answer_costs_a_line_and_no_request(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "FLUSH_SECONDS", 0.2)
    with caplog.at_level(logging.WARNING):
        async with (
            fake_node("a") as node,
            endpoint(node, otlp="http://127.0.0.1:9") as balancer,
        ):
            answers = [await balancer.post(CHAT, chat(max_tokens=1)) for _ in range(9)]
            async with asyncio.timeout(PATIENCE):
                while "traces do not reach" not in caplog.text:
                    await asyncio.sleep(0.01)
            began = time.monotonic()
        spent = time.monotonic() - began

    assert {each.status for each in answers} == {200}
    assert caplog.text.count("traces do not reach http://127.0.0.1:9/v1/traces") == 1
    assert spent < PATIENCE


@NEEDS_EXTRA
async def test_a_fault_in_a_trace_costs_no_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise KeyError("something")

    monkeypatch.setattr("balancer.telemetry.spans.request_values", fails)
    async with (
        collector() as traces,
        fake_node("a") as node,
        endpoint(node, otlp=traces.url) as balancer,
    ):
        answers = [await balancer.post(CHAT, chat(max_tokens=1)) for _ in range(3)]

    assert [each.status for each in answers] == [200] * 3
    assert caplog.text.count("a trace is left out") == 1


async def test_without_a_collector_there_are_no_spans() -> None:
    async with exporting("", {}) as spans:
        assert spans is None


@NEEDS_EXTRA
async def test_opentelemetrys_own_variables_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with collector() as traces:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", traces.url)
        async with fake_node("a") as node, endpoint(node) as balancer:
            await balancer.post(CHAT, chat(max_tokens=1))

        assert traces.root().name == "chat small"


async def test_a_missing_extra_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)

    with pytest.raises(SettingsError, match=r"pip install '\.\[otel\]'"):
        async with exporting("http://collector:4318", {}):
            pass
    async with exporting("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}) as spans:
        assert spans is None
    assert otlp.MISSING in caplog.text


@pytest.mark.parametrize(
    ("url", "environ", "target"),
    [
        ("http://c:4318", {}, "http://c:4318/v1/traces"),
        ("http://c:4318/", {}, "http://c:4318/v1/traces"),
        ("http://c/v1/traces", {}, "http://c/v1/traces"),
        ("http://c", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://d"}, "http://c/v1/traces"),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://d/x"}, "http://d/x/v1/traces"),
        ("", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://d/x"}, "http://d/x"),
        ("", {}, None),
    ],
)
def test_where_traces_go(url: str, environ: dict[str, str], target: str | None) -> None:
    assert target_of(url, environ) == target


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(ValueError, match="otlp"):
        BalancerSettings(otlp="collector:4318")


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/messages", "chat"),
        ("/v1/completions", "text_completion"),
        ("/v1/embeddings", "embeddings"),
        ("/v1/rerank", "rerank"),
        ("/v1/messages/count_tokens", "count_tokens"),
        ("/tokenize", "tokenize"),
    ],
)
def test_operations_have_the_names_of_the_conventions(
    path: str, operation: str
) -> None:
    assert operation_of(path) == operation


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        ("answered", "answered"),
        ("refused by the engine", "answered"),
        ("moved: another is faster", "moved"),
        ("broke off: no answer from x", "broken"),
        ("some words of an engine", "failed"),
        (None, "cancelled"),
    ],
)
def test_an_outcome_is_one_word_without_an_engines_text(
    outcome: str | None, word: str
) -> None:
    assert outcome_of(outcome) == word
