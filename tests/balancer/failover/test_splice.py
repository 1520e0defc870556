"""What a client gets when another engine goes on with its stream."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.failover.resume import Finish, RefuseResume, Resume, resume
from edgeserve.http.sse import whole_events
from edgeserve.openai import ROUTES
from tests.balancer.broken_streams import (
    DONE,
    Engine,
    data_of,
    first,
    sse,
    text_of,
    timings,
    usage,
)

CHAT = ROUTES["/v1/chat/completions"]
WORDS = ["Once", " upon", " a", " time", " there", " was", " näive", " 🎉", "."]
_DONE = "response.completed"
QUESTION = {"role": "user", "content": "Tell me a story."}


def a_chat(**more: Any) -> bytes:
    return json.dumps({"messages": [QUESTION], "stream": True, **more}).encode()


def resumed(
    given: bytes, body: bytes = b"", path: str = CHAT.path, prompt: int | None = None
) -> Resume:
    outcome = resume(body or a_chat(), ROUTES[path], [given], prompt_tokens=prompt)
    assert isinstance(outcome, Resume), outcome
    return outcome


def fed(outcome: Resume, stream: bytes, size: int = 11) -> bytes:
    return b"".join(
        outcome.splice.feed(stream[at : at + size])
        for at in range(0, len(stream), size)
    )


@given(cut=st.integers(0, len(WORDS)), size=st.integers(1, 400))
def test_a_resumed_stream_is_the_undisturbed_one_wherever_it_broke(
    cut: int, size: int
) -> None:
    undisturbed = Engine("a").chat(WORDS)
    given = first(undisturbed, 1 + cut)
    outcome = resumed(given)
    rest = Engine("b", prompt=10 + cut).chat(WORDS[cut:], mending=True)

    resumed_stream = given + fed(outcome, rest, size)

    assert outcome.splice.ended
    assert data_of(undisturbed)[:-1] == data_of(resumed_stream)[:-1]
    assert data_of(resumed_stream)[-1]["usage"] == usage(10, len(WORDS))
    assert resumed_stream.count(DONE) == 1
    assert resumed_stream.endswith(DONE)


def test_the_next_engine_is_asked_to_continue_the_text_so_far() -> None:
    given = first(Engine().chat(WORDS), 4)

    body = json.loads(resumed(given, a_chat(max_tokens=20, seed=7, temperature=0)).body)

    said = {"role": "assistant", "content": "Once upon a"}
    assert body["messages"] == [QUESTION, said]
    assert (body["max_tokens"], body["seed"], body["temperature"]) == (17, 7, 0)


def test_the_callers_own_opening_words_are_lengthened() -> None:
    opening = {"role": "assistant", "content": "Well,"}
    given = first(Engine().chat([" once", " upon"]), 3)

    body = json.loads(resumed(given, a_chat(messages=[QUESTION, opening])).body)

    said = {"role": "assistant", "content": "Well, once upon"}
    assert body["messages"] == [QUESTION, said]


def test_finished_reasoning_goes_along() -> None:
    given = sse({"choices": [{"delta": {"reasoning_content": "Hm."}}]})
    given += sse({"choices": [{"delta": {"content": "Yes"}}]})

    body = json.loads(resumed(given).body)

    assert body["messages"][-1]["reasoning_content"] == "Hm."
    assert body["messages"][-1]["content"] == "Yes"


def test_half_an_event_counts_as_not_given() -> None:
    given = first(Engine().chat(WORDS), 3)
    torn = given + b'data: {"choices":[{"delta":{"content":" a'

    assert resumed(torn).body == resumed(given).body
    assert whole_events(torn) == (given, torn.removeprefix(given))


@given(st.lists(st.sampled_from([b"data: 1\n\n", b": \n\n", b"data", b"\n", b"x"])))
def test_whole_events_lose_no_byte(pieces: list[bytes]) -> None:
    buffer = b"".join(pieces)

    whole, rest = whole_events(buffer)

    assert whole + rest == buffer
    assert whole == b"" or whole.endswith(b"\n\n")
    assert b"\n\n" not in rest


def test_before_any_text_the_request_stays_and_the_role_is_sent_once() -> None:
    given = first(Engine("a").chat(WORDS), 1)
    outcome = resumed(given)

    resumed_stream = given + fed(outcome, Engine("b").chat(WORDS, mending=True))

    assert json.loads(outcome.body)["messages"] == [QUESTION]
    assert text_of(resumed_stream) == "".join(WORDS)
    assert resumed_stream.count(b'"role"') == 1


def test_a_stream_of_which_nothing_came_takes_the_next_engines_name() -> None:
    outcome = resumed(b"")

    resumed_stream = fed(outcome, Engine("b").chat(WORDS, mending=True))

    assert {each["id"] for each in data_of(resumed_stream)} == {"chatcmpl-b"}
    assert b"prompt_progress" not in resumed_stream
    assert resumed_stream.count(b'"role"') == 1


def test_a_stream_may_be_resumed_twice() -> None:
    given = first(Engine("a").chat(WORDS), 3)
    second = Engine("b", prompt=12).chat(WORDS[2:], mending=True)
    given += fed(resumed(given), first(second, 5))
    outcome = resumed(given, prompt=10)

    third = Engine("c", prompt=15).chat(WORDS[5:], mending=True)
    resumed_stream = given + fed(outcome, third)

    assert text_of(resumed_stream) == "".join(WORDS)
    assert {each["id"] for each in data_of(resumed_stream)} == {"chatcmpl-a"}
    assert data_of(resumed_stream)[-1]["usage"] == usage(10, len(WORDS))


def test_comments_pass_and_what_follows_the_end_does_not() -> None:
    outcome = resumed(first(Engine().chat(WORDS), 3))

    resumed_stream = outcome.splice.feed(
        b":\n\n" + Engine("b").chat([" a"]) + DONE + b"\n"
    )

    assert resumed_stream.startswith(b":\n\n")
    assert resumed_stream.count(DONE) == 1


def test_the_engines_own_error_is_kept_from_the_client() -> None:
    outcome = resumed(first(Engine().chat(WORDS), 3))

    resumed_stream = outcome.splice.feed(
        sse({"error": {"code": 500, "message": "no"}}) + DONE
    )

    assert resumed_stream == b""
    assert outcome.splice.error is not None
    told = json.loads(outcome.splice.error.body)
    assert told == {"error": {"code": 500, "message": "no"}}
    assert not outcome.splice.ended


def test_an_event_that_is_no_json_is_an_error() -> None:
    outcome = resumed(first(Engine().chat(WORDS), 3))

    assert outcome.splice.feed(b"data: oops\n\n") == b""
    assert outcome.splice.error is not None


def test_unknown_fields_survive() -> None:
    outcome = resumed(first(Engine().chat(WORDS), 3))
    event = {"choices": [{"delta": {"content": "!"}}], "new": {"field": [1.5, None]}}

    resumed_stream = outcome.splice.feed(sse(event))

    assert data_of(resumed_stream)[0]["new"] == {"field": [1.5, None]}


def test_completions_go_on_behind_the_prompt() -> None:
    given = first(Engine("a").completion(WORDS), 2)
    body = json.dumps({"prompt": "Story:", "n_predict": 9, "max_tokens": 99}).encode()
    outcome = resumed(given, body, "/v1/completions")

    resumed_stream = given + fed(outcome, Engine("b", prompt=12).completion(WORDS[2:]))

    asked = json.loads(outcome.body)
    assert (asked["prompt"], asked["max_tokens"]) == ("Story:Once upon", 7)
    assert "n_predict" not in asked
    assert text_of(resumed_stream) == "".join(WORDS)
    assert data_of(resumed_stream)[-1]["usage"] == usage(10, 9)


def test_native_completions_go_on_with_the_very_tokens() -> None:
    ids = list(range(100, 109))
    given = first(Engine("a").native(WORDS, ids), 2)
    body = b'{"prompt": "Once"}'
    outcome = resumed(given, body, "/completion")

    resumed_stream = given + fed(
        outcome, Engine("b", prompt=12).native(WORDS[2:], ids[2:])
    )

    assert json.loads(outcome.body)["prompt"] == ["Once", 100, 101]
    assert outcome.splice.ended
    end = data_of(resumed_stream)[-1]
    assert text_of(resumed_stream) == "".join(WORDS)
    assert (end["tokens_predicted"], end["tokens_evaluated"]) == (9, 10)
    assert end["timings"]["predicted_n"] == 9
    assert end["generation_settings"]["n_predict"] == -1


def test_native_text_held_back_is_made_again_and_not_counted() -> None:
    # The third token may begin a stop word: it came, but its text did not.
    given = first(Engine().native(["a", "b", ""], [1, 2, 3]), 3)

    body = json.loads(
        resumed(given, b'{"prompt":"x","n_predict":9}', "/completion").body
    )

    assert body["prompt"] == ["x", 1, 2]
    assert body["max_tokens"] == 7


def test_native_characters_of_several_tokens_go_on_as_text() -> None:
    given = first(Engine().native(["a", "🎉"], [1, 9], counts=[1, 4]), 2)

    body = json.loads(
        resumed(given, b'{"prompt":"x","n_predict":9}', "/completion").body
    )

    assert body["prompt"] == "xa🎉"
    assert body["max_tokens"] == 5


def test_anthropic_messages_stay_one_message() -> None:
    given = first(Engine("a").messages(WORDS), 4)
    body = a_chat(max_tokens=50)
    outcome = resumed(given, body, "/v1/messages")

    resumed_stream = given + fed(outcome, Engine("b", prompt=12).messages(WORDS[2:]))

    assert outcome.splice.ended
    assert data_of(resumed_stream) == data_of(Engine("a").messages(WORDS))
    assert resumed_stream.count(b"event: message_start") == 1


def test_responses_stay_one_response() -> None:
    given = first(Engine("a").responses(WORDS), 6)
    body = b'{"input": "Tell me", "max_output_tokens": 50}'
    outcome = resumed(given, body, "/v1/responses")

    rest = Engine("b", prompt=12).responses(WORDS[2:], before="Once upon")
    resumed_stream = given + fed(outcome, rest)

    asked = json.loads(outcome.body)
    assert asked["max_tokens"] == 48
    assert asked["input"][-1]["content"][0]["text"] == "Once upon"
    assert outcome.splice.ended
    assert data_of(resumed_stream) == data_of(Engine("a").responses(WORDS))


def test_an_answer_that_only_lacks_its_end_needs_no_engine() -> None:
    whole = Engine().chat(WORDS)
    cut = len(data_of(whole))

    assert resume(a_chat(), CHAT, [first(whole, cut - 1)]) == Finish(DONE)
    assert resume(a_chat(), CHAT, [first(whole, cut)]) == Finish(DONE)
    assert resume(a_chat(), CHAT, [whole]) == Finish(b"")
    # Even one that no engine could have taken up.
    asked = a_chat(grammar="root ::= x")
    assert resume(asked, CHAT, [first(whole, cut)]) == Finish(DONE)


@pytest.mark.parametrize(
    ("path", "stream", "events"),
    [
        ("/v1/chat/completions", Engine("a").chat(["a", "b"]), 3),
        ("/v1/completions", Engine("a").completion(["a", "b"]), 2),
        ("/completion", Engine("a").native(["a", "b"], [1, 2]), 2),
        ("/v1/messages", Engine("a").messages(["a", "b"]), 4),
        ("/v1/responses", Engine("a").responses(["a", "b"]), 6),
    ],
)
def test_an_answer_that_has_used_up_its_tokens_needs_no_engine(
    path: str, stream: bytes, events: int
) -> None:
    given = first(stream, events)
    body = a_chat(max_tokens=2, prompt="x", stream_options={"include_usage": True})

    outcome = resume(body, ROUTES[path], [given], prompt_tokens=10)

    assert isinstance(outcome, Finish)
    assert text_of(given + outcome.tail) == "ab"
    said = outcome.tail.decode()
    assert any(f'"{why}"' in said for why in ("length", "limit", "max_tokens", _DONE))
    whole = resume(body, ROUTES[path], [given + outcome.tail])
    assert whole == Finish(b"")


def test_an_answer_torn_among_its_last_events_is_refused() -> None:
    whole = Engine().messages(WORDS)
    given = whole[: whole.index(b"event: message_delta")]

    assert isinstance(resume(a_chat(), ROUTES["/v1/messages"], [given]), RefuseResume)


def test_timings_are_those_of_the_whole_answer_at_the_last_engines_pace() -> None:
    given = first(Engine("a").chat(WORDS), 3)

    resumed_stream = fed(
        resumed(given), Engine("b", prompt=12).chat(WORDS[2:], mending=True)
    )

    assert data_of(resumed_stream)[-1]["timings"] == timings(10, 9)
    assert resumed_stream.count(b'"timings"') == 1


def test_a_request_for_timings_at_every_token_keeps_them() -> None:
    given = first(Engine("a").chat(WORDS), 3)
    outcome = resumed(given, a_chat(timings_per_token=True))

    resumed_stream = fed(outcome, Engine("b", prompt=12).chat(WORDS[2:], mending=True))

    assert data_of(resumed_stream)[0]["timings"]["predicted_n"] == 3
