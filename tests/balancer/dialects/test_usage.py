"""How many tokens the rest of an answer may have."""

from __future__ import annotations

import json
from typing import Any

from balancer.failover.resume import Resume, resume
from edgeserve.openai import ROUTES
from tests.balancer.broken_streams import DONE, Engine, data_of, first, text_of, usage

CHAT = ROUTES["/v1/chat/completions"]


def parties(limit: int | None, prompt: int | None) -> tuple[bytes, Resume]:
    """Three characters of four tokens each, in a stream that breaks off."""
    given = first(Engine("a").chat(["🎉", "🥳", "🎂"], sizes=[4, 4, 4]), 4)
    request: dict[str, Any] = {"messages": [{"role": "user", "content": "Party!"}]}
    request |= {"stream_options": {"include_usage": True}}
    request |= {} if limit is None else {"max_tokens": limit}
    body = json.dumps(request).encode()
    outcome = resume(body, CHAT, [given], prompt_tokens=prompt)
    assert isinstance(outcome, Resume)
    return given, outcome


def test_no_limit_stays_no_limit() -> None:
    _, outcome = parties(None, None)

    assert "max_tokens" not in json.loads(outcome.body)


def test_a_character_may_hide_tokens_so_the_engine_is_granted_too_much() -> None:
    _, outcome = parties(20, None)

    assert json.loads(outcome.body)["max_tokens"] == 17


def test_where_the_prompt_is_known_the_answer_ends_at_the_very_token() -> None:
    given, outcome = parties(20, 10)
    rest = Engine("b", prompt=22).chat(
        ["🎈", "🎁", "🎊"], sizes=[4, 4, 4], mending=True
    )

    resumed_stream = given + outcome.splice.feed(rest)

    assert outcome.splice.ended
    assert text_of(resumed_stream) == "🎉🥳🎂🎈🎁"
    *_, last, counted = data_of(resumed_stream)
    assert last["choices"][0]["finish_reason"] == "length"
    assert counted["usage"]["completion_tokens"] == 20
    assert counted["usage"]["total_tokens"] == 30
    assert resumed_stream.endswith(DONE)


def test_a_character_that_would_go_past_the_limit_is_not_sent() -> None:
    given, outcome = parties(18, 10)
    rest = Engine("b", prompt=22).chat(["🎈", "🎁"], sizes=[4, 4], mending=True)

    resumed_stream = given + outcome.splice.feed(rest)

    assert text_of(resumed_stream) == "🎉🥳🎂🎈"
    assert data_of(resumed_stream)[-1]["usage"]["completion_tokens"] == 18


def test_an_engine_that_stops_in_time_ends_the_answer() -> None:
    given, outcome = parties(20, 10)
    rest = Engine("b", prompt=22).chat([" !"], mending=True)

    resumed_stream = given + outcome.splice.feed(rest)

    assert data_of(resumed_stream)[-2]["choices"][0]["finish_reason"] == "stop"
    assert data_of(resumed_stream)[-1]["usage"] == usage(10, 13)


def test_without_the_prompts_length_the_sum_is_still_right() -> None:
    given, outcome = parties(None, None)
    rest = Engine("b", prompt=22).chat([" !"], mending=True)

    resumed_stream = given + outcome.splice.feed(rest)

    assert data_of(resumed_stream)[-1]["usage"]["total_tokens"] == 23


def test_a_prompt_of_another_length_than_reported_does_not_end_the_answer() -> None:
    given, outcome = parties(20, 1)
    rest = Engine("b", prompt=99).chat([" !"], mending=True)

    resumed_stream = given + outcome.splice.feed(rest)

    assert text_of(resumed_stream) == "🎉🥳🎂 !"
    assert data_of(resumed_stream)[-1]["usage"]["total_tokens"] == 100
