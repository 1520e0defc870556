"""Servers that lie, babble or fall silent in an answer harm nobody but themselves."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from balancer.servers import client
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint
from tests.balancer.servers.reading import events, text
from tests.fakes.dialects.base import CALL, DONE, SAID, Dialect
from tests.fakes.dialects.running import fake_dialect
from tests.fakes.dialects.server import Answer, Asked, answer, light_server, streamed

PLAIN = Dialect()
HEAD = PLAIN.head("chat.completion.chunk")
ALL = [*PLAIN.begins(), *PLAIN.says(), *PLAIN.stops("stop"), DONE]
BEGUN = [*PLAIN.begins(), *PLAIN.says()[:1]]
END = [*PLAIN.stops("stop"), DONE]

LIES = {
    "empty": (Answer(), "with an empty body: see its log"),
    "204": (Answer(204), "204 with an empty body"),
    "an error with 200": (answer({"error": "Unexpected endpoint"}), "Unexpected endp"),
    "a page": (Answer(200, b"<html>", "text/html"), "with text/html, no JSON object"),
    "half of it": (Answer(200, b'{"choices": [{"mess'), "no JSON object"),
    "an empty object": (answer({}), "without any answer in it"),
    "no choices": (answer({"choices": []}), "without any answer in it"),
    "no message": (answer({"choices": [{"index": 0}]}), "without any answer in it"),
    "other types": (answer({"choices": 5}), "fields of other types"),
    "a null": (answer({"choices": [None]}), "fields of other types"),
    "a list": (answer([1]), "fields of other types"),
    "no text": (answer({"choices": [{"message": {"content": 5}}]}), "other types"),
    "a redirect": (
        Answer(307, headers={"location": "https://b/v1"}),
        "answered 307: it points to https://b/v1; name that URL",
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_success_that_is_no_answer_is_said_in_one_sentence(lie: str) -> None:
    found, said = LIES[lie]
    async with (
        fake_dialect(PLAIN, failing=found) as server,
        endpoint(servers=(server.url,), attempts=1) as here,
    ):
        asked = [
            await here.post(CHAT, chat(stream=True)),
            await here.post(CHAT, chat()),
            await here.post(CHAT, chat(max_tokens=1)),
        ]

    for each in asked:
        assert each.status == 502
        assert f"POST /v1/chat/completions of {server.url} was answered" in each.error
        assert said in each.error


CHUNKS: dict[str, tuple[Any, ...]] = {
    "no JSON": (b"data: {nope\n\n",),
    "a number": (b"data: 5\n\n",),
    "choices that are none": (PLAIN.line({"choices": 5}),),
    "a choice that is none": (PLAIN.line({"choices": [None]}),),
    "a delta that is none": (PLAIN.line({"choices": [{"index": 0, "delta": 5}]}),),
    "a content that is no text": (PLAIN.chunk({"content": 5}),),
    "tools that are none": (PLAIN.chunk({"tool_calls": ["a"]}),),
    "a choice far away": (PLAIN.line({"choices": [{"index": 10**9, "delta": {}}]}),),
    "an event without end": (b"data: " + b"x" * 3_000_000, b"x" * 3_000_000),
    "an error": (PLAIN.line({"error": {"message": "oom", "code": "bad"}}),),
    "an error that is a text": (PLAIN.line({"error": "oom"}),),
    "an error by its name": (b'event: error\ndata: {"message": "oom"}\n\n',),
    "a finish that is a failure": (PLAIN.chunk({}, "error"),),
}


@pytest.mark.parametrize("wrong", CHUNKS)
async def test_a_wrong_event_is_a_failure_before_and_after_the_first_text(
    wrong: str,
) -> None:
    bad = CHUNKS[wrong]
    async with (
        fake_dialect(PLAIN, failing=streamed(*bad, *ALL)) as server,
        endpoint(servers=(server.url,), attempts=1) as here,
    ):
        first = await here.post(CHAT, chat(stream=True))
        server.failing = streamed(*BEGUN, *bad, *END)
        later = await here.post(CHAT, chat(stream=True))
        whole = await here.post(CHAT, chat())

    for each in (first, whole):
        assert each.status >= 500
        assert "internal error" not in each.error
    assert text(later.body) == "Hello"
    assert "internal error" not in events(later.body)[-1]["error"]["message"]


LONG = "a" * 2**20
TWO = [{"content": "A"}, {"content": "B"}]
ODD: dict[str, tuple[list[Any], str]] = {
    "CRLF and no space": (
        [each.replace(b"data: ", b"data:").replace(b"\n", b"\r\n") for each in ALL],
        SAID,
    ),
    "CRLF byte by byte": (
        [bytes([each]) for each in b"".join(ALL).replace(b"\n", b"\r\n")],
        SAID,
    ),
    "several data lines": (
        [*BEGUN, b'data: {"choices":[{"index":0,\ndata: "delta":{},\n'
         b'data: "finish_reason":"stop"}]}\n\n', DONE],
        "Hello",
    ),
    "a line of 1 MB": ([*BEGUN, PLAIN.chunk({"content": LONG}), *END], "Hello" + LONG),
    "half a character in a text": (
        [*BEGUN, PLAIN.chunk({"content": "?"}).replace(b"?", b"\xc3"), *END],
        "Hello\ufffd",
    ),
    "half a character at the end": ([*ALL, b"\xc3"], SAID),
    "text after the end": ([*ALL, *PLAIN.says()], SAID),
    "ids and times to retry": ([b"retry: 5\nid: 1\n\n", *ALL], SAID),
    "a negative usage": ([*ALL[:-1], PLAIN.line(
        {"choices": [], "usage": {"prompt_tokens": -5, "completion_tokens": -1}}
    ), DONE], SAID),
    "a huge usage": ([*ALL[:-1], PLAIN.line(
        {"choices": [], "usage": {"prompt_tokens": 10**18, "completion_tokens": 10**30}}
    ), DONE], SAID),
    "a usage of texts": ([*ALL[:-1], PLAIN.line(
        {"choices": [], "usage": {"prompt_tokens": "x"}}
    ), DONE], SAID),
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
async def test_an_odd_stream_is_read_for_what_it_says(odd: str) -> None:
    pieces, said = ODD[odd]
    async with (
        fake_dialect(PLAIN, failing=streamed(*pieces)) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        answered = await here.post(CHAT, chat(stream=True))
        whole = await here.post(CHAT, chat())

    assert text(answered.body) == whole.text == said
    assert events(answered.body)[-1] == "[DONE]"


async def test_several_choices_in_a_chunk_are_kept_apart() -> None:
    said = [{**PLAIN.choice(each, None), "index": n} for n, each in enumerate(TWO)]
    ends = [{**PLAIN.choice({}, "stop"), "index": n} for n in range(2)]
    both = [PLAIN.line({**HEAD, "choices": each}) for each in (said, ends)]
    async with (
        fake_dialect(PLAIN, failing=streamed(*both, DONE)) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        whole = await here.post(CHAT, chat(n=2))

    texts = [each["message"]["content"] for each in whole.json["choices"]]
    assert texts == ["A", "B"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stream_that_never_closes_after_its_end_holds_nobody(
    *, stream: bool
) -> None:
    failing = streamed(b"".join(ALL), b": one\n\n", b": two\n\n")
    async with (
        fake_dialect(PLAIN, failing=failing, gate=asyncio.Event()) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        async with asyncio.timeout(20):
            answered = await here.post(CHAT, chat(stream=stream))

    assert (text(answered.body) if stream else answered.text) == SAID


@pytest.mark.parametrize("tools", [[], [{"type": "function", "function": {}}]])
async def test_a_server_without_streams_answers_requests_for_one(tools: Any) -> None:
    whole = PLAIN.whole({"tools": tools}, chats=True)
    async with (
        fake_dialect(PLAIN, failing=answer(whole)) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        counted = {"include_usage": True}
        answered = await here.post(CHAT, chat(stream=True, stream_options=counted))

    deltas = [e["choices"] for e in events(answered.body)[:-1] if e["choices"]]
    assert events(answered.body)[-1] == "[DONE]"
    assert events(answered.body)[-2]["usage"]["completion_tokens"] == 3
    if tools:
        assert deltas[0][0]["delta"]["tool_calls"][0]["function"] == CALL
    else:
        assert text(answered.body) == SAID


async def test_a_server_that_always_streams_answers_requests_for_none() -> None:
    async with (
        fake_dialect(PLAIN, failing=streamed(*ALL)) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        answered = await here.post(CHAT, chat(max_tokens=1))

        assert "stream" not in server.asked[0].json
    assert answered.text == SAID


async def test_an_answer_without_end_is_not_read_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "LARGEST_ANSWER", 100_000)
    endless = Answer(200, [b" " * 50_000] * 50)
    async with (
        fake_dialect(PLAIN, failing=endless) as server,
        endpoint(servers=(server.url,), attempts=1) as here,
    ):
        answered = await here.post(CHAT, chat(max_tokens=1))

    assert answered.status == 502
    assert "was answered with over 100000 bytes" in answered.error


async def said_twice(here: Endpoint) -> list[str]:
    return [(await here.post(CHAT, chat(word, max_tokens=1))).text for word in "ab"]


async def test_bytes_that_nobody_asked_for_are_no_answer_to_the_next_request() -> None:
    async def handle(asked: Asked) -> Answer:
        if asked.method == "GET":
            return PLAIN.answer(asked)
        word = asked.json["messages"][0]["content"]
        whole = json.dumps(PLAIN.whole({}, chats=True)).replace(SAID, word)
        return Answer(200, whole.encode(), repeated=True)

    async with (
        light_server(handle) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        assert await said_twice(here) == ["a", "b"]
