"""A stream cut anywhere and continued on a second engine is the undisturbed stream.

The questions are such that the model is sure of every token: where two tokens are
nearly as likely, reading a prompt in one batch and writing it token by token may part
by rounding, in whatever form the text is carried over.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from balancer.failover.resume import Resume, resume
from edgeserve.openai import ROUTES
from tests.balancer.broken_streams import data_of, first, text_of
from tests.balancer.engine import RealEngine, real_engine

pytestmark = pytest.mark.engine

EXACT = {"stream": True, "temperature": 0, "cache_prompt": False}
LETTERS = "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z"
ALPHABET = [
    {"role": "user", "content": "Say the alphabet."},
    {"role": "assistant", "content": LETTERS},
    {"role": "user", "content": "Say the alphabet again."},
]
NUMBERS = "1, 2, 3, 4, 5, 6, 7, 8, 9,"
TOKENS = 14


@pytest.fixture(scope="module")
def engines(smollm2: Path) -> Generator[tuple[RealEngine, RealEngine]]:
    with real_engine(smollm2) as lost, real_engine(smollm2) as found:
        yield lost, found


def streamed(engine: RealEngine, path: str, request: dict[str, Any]) -> bytes:
    status, body = engine.post(path, json.dumps(request).encode())
    assert status == 200, body
    return body


def resumed_stream(
    engine: RealEngine, path: str, request: dict[str, Any], given: bytes, prompt: int
) -> bytes:
    outcome = resume(
        json.dumps(request).encode(), ROUTES[path], [given], prompt_tokens=prompt
    )
    assert isinstance(outcome, Resume)
    status, rest = engine.post(path, outcome.body)
    assert status == 200, rest
    out = given + outcome.splice.feed(rest)
    assert outcome.splice.ended
    return out


def told(stream: bytes) -> list[Any]:
    """Every event, but for what differs from run to run and for empty pieces.

    Where a stop word may have begun, a completion sends an empty piece; once more from
    the engine that goes on.
    """
    return [_steady(each) for each in data_of(stream) if not _is_empty(each)]


def _is_empty(event: dict[str, Any]) -> bool:
    match event:
        case {"choices": [{"text": "", "finish_reason": None}]}:
            return True
        case _:
            return False


def _steady(event: Any) -> Any:
    varies = {"id", "created", "created_at", "timings", "item_id", "id_slot"}
    if isinstance(event, dict):
        return {k: _steady(v) for k, v in event.items() if k not in varies}
    return [_steady(each) for each in event] if isinstance(event, list) else event


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (
        "/v1/chat/completions",
        {"messages": ALPHABET, "stream_options": {"include_usage": True}},
    ),
    "chat with opening words": (
        "/v1/chat/completions",
        {"messages": [*ALPHABET, {"role": "assistant", "content": "A B C D"}]},
    ),
    "completion": ("/v1/completions", {"prompt": NUMBERS}),
    "completion with a stop word": (
        "/v1/completions",
        {"prompt": NUMBERS, "stop": [" 12, 13"]},
    ),
    "native": ("/completion", {"prompt": NUMBERS}),
    "messages": ("/v1/messages", {"messages": ALPHABET}),
    "responses": (
        "/v1/responses",
        {"input": [{"type": "message", **each} for each in ALPHABET]},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_stream_cut_anywhere_comes_out_as_if_undisturbed(
    engines: tuple[RealEngine, RealEngine], name: str
) -> None:
    lost, found = engines
    path, fields = CASES[name]
    request = {**fields, **EXACT, "max_tokens": TOKENS}
    undisturbed = streamed(lost, path, request)
    events = undisturbed.count(b"\n\n")

    for cut in (5, events - 7):
        given = first(undisturbed, cut)
        out = resumed_stream(found, path, request, given, prompt_length(undisturbed))

        assert text_of(out) == text_of(undisturbed), text_of(given)
        assert told(out) == told(undisturbed)


def prompt_length(stream: bytes) -> int:
    for event in data_of(stream):
        match event:
            case {"usage": {"prompt_tokens": int(tokens)}}:
                return tokens
            case {"tokens_evaluated": int(tokens)}:
                return tokens
            case {"message": {"usage": dict(usage)}}:
                return int(usage["input_tokens"] + usage["cache_read_input_tokens"])
            case {"response": {"usage": {"input_tokens": int(tokens)}}}:
                return tokens
            case {"timings": {"prompt_n": int(tokens), "cache_n": int(cached)}}:
                return tokens + cached
            case _:
                pass
    raise AssertionError("the stream does not say how long its prompt was")


def test_characters_of_several_tokens_do_not_stretch_the_budget(
    engines: tuple[RealEngine, RealEngine],
) -> None:
    lost, found = engines
    path = "/v1/completions"
    request = {"prompt": "🎉" * 12, **EXACT, "max_tokens": TOKENS}
    undisturbed = streamed(lost, path, request)
    assert len(text_of(undisturbed)) < TOKENS, "a character should take several tokens"

    given = first(undisturbed, 2)
    out = resumed_stream(found, path, request, given, prompt_length(undisturbed))

    assert (
        data_of(out)[-1]["usage"].items() <= data_of(undisturbed)[-1]["usage"].items()
    )
    assert text_of(out) == text_of(undisturbed)
