"""A real engine's streams, with whatever options: followed to their very end."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from balancer.failover.splice import reader_for
from balancer.request import read_request
from edgeserve.openai import ROUTES
from tests.balancer.engine import RealEngine, real_engine
from tests.fakes.reports import an_engine

pytestmark = pytest.mark.engine

CHAT, TEXT, NATIVE = "/v1/chat/completions", "/v1/completions", "/completion"
HELLO = [{"role": "user", "content": "Say hello to Ada."}]
EXACT = {"temperature": 0, "cache_prompt": False, "seed": 1, "stream": True}
USAGE = {"stream_options": {"include_usage": True}}
NULL, PING = b"data: null\n\n", b":\n\n"
"""What an engine sends or not as it pleases."""
TWO = ["One two", "Red green"]

CASES: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"n": 2}),
    (CHAT, {"n": 2, **USAGE}),
    (CHAT, {"n": 2, "return_progress": True}),
    (CHAT, {"timings_per_token": True, **USAGE}),
    (CHAT, {"logprobs": True, "top_logprobs": 2}),
    (CHAT, {"max_tokens": 0}),
    (CHAT, {"verbose": True}),
    (CHAT, {"sse_ping_interval": 1, "echo": True}),
    (TEXT, {"prompt": TWO}),
    (TEXT, {"prompt": TWO, "n": 2, "return_progress": True}),
    (TEXT, {"prompt": [[504, 905], [253]], **USAGE}),
    (TEXT, {"logprobs": 2}),
    (TEXT, {"max_tokens": 0}),
    (NATIVE, {"prompt": TWO}),
    (NATIVE, {"prompt": TWO, "response_fields": ["content"]}),
    (NATIVE, {"prompt": TWO, "response_fields": ["nothing"], "n_cmpl": 2}),
    (NATIVE, {"response_fields": ["stop", "timings/predicted_n"]}),
    (NATIVE, {"response_fields": ["content"], "return_progress": True}),
    (NATIVE, {"response_fields": []}),
    (NATIVE, {"n_probs": 2, "return_tokens": True, "timings_per_token": True}),
    (NATIVE, {"n_predict": 0}),
    (NATIVE, {"prompt": ""}),
    (NATIVE, {"prompt": [504, "two", 253]}),
]


@pytest.fixture(scope="module")
def engine(smollm2: Path) -> Generator[RealEngine]:
    with real_engine(smollm2) as running:
        yield running


@pytest.mark.parametrize(("path", "options"), CASES)
def test_a_stream_is_followed_to_its_end_and_shows_what_was_asked_for(
    engine: RealEngine, path: str, options: dict[str, Any]
) -> None:
    asked = {"messages": HELLO} if path == CHAT else {"prompt": "One two"}
    body = json.dumps({**asked, "max_tokens": 4, **EXACT, **options}).encode()
    work = read_request(ROUTES[path], body)
    expected = told(engine, path, body)
    reader = reader_for(work, "id", "smol:Q4_1", None)
    *most, last = told(engine, path, work.body_for(an_engine("smol:Q4_1")))

    passed = [reader.feed(each) for each in most]
    assert not reader.ended
    passed.append(reader.feed(last))

    assert reader.ended
    shown = [each + b"\n\n" for each in b"".join(passed).split(b"\n\n")[:-1]]
    assert sorted(map(shape, shown)) == sorted(map(shape, expected))


def told(engine: RealEngine, path: str, body: bytes) -> list[bytes]:
    status, stream = engine.post(path, body)
    assert status == 200, stream
    events = [each + b"\n\n" for each in stream.split(b"\n\n") if each.strip()]
    return [each for each in events if each not in {NULL, PING}]


def shape(event: bytes) -> str:
    """Which fields an event has, and of which of the answers it is."""
    data = event.strip().removeprefix(b"data: ")
    if not data.startswith(b"{"):
        return data.decode()
    found = json.loads(data)
    choices = found.get("choices") or [{}]
    which = found.get("index"), choices[0].get("index"), *choices[0].get("delta", ())
    return f"{sorted(found)} {which}"
