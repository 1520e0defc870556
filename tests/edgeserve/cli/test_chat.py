import os
import signal
from collections.abc import Iterator

import pytest

from edgeserve.cli import chat
from edgeserve.cli.client import NoAnswer
from tests.fakes.endpoint import (
    MODELS,
    FakeEndpoint,
    chat_event,
    chat_stream,
    fake_endpoint,
)
from tests.fakes.terminal import Terminal
from tests.patience import PATIENCE

CHAT = "/v1/chat/completions"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    answers = {"/v1/models": MODELS, CHAT: chat_stream("Hello", " there")}
    with fake_endpoint(answers) as running:
        monkeypatch.setenv("EDGESERVE_URL", running.url)
        yield running


def test_one_question_gets_one_answer(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    seen = edgeserve("chat", "Hi", "--system", "Be brief.", "--max-tokens", "5")

    assert (seen.status, seen.out) == (0, "Hello there\n")
    assert endpoint.said(CHAT) == [
        {
            "model": "words",
            "stream": True,
            "max_tokens": 5,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi"},
            ],
        }
    ]


def test_a_text_from_a_pipe_stands_behind_the_prompt(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    edgeserve("chat", "Sum it up.", piped="A long text.\n")

    (asked,) = endpoint.said(CHAT)
    assert asked["messages"][-1]["content"] == "Sum it up.\n\nA long text."


def test_a_conversation_contains_the_messages_before(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    seen = edgeserve("chat", "--model", "words", typed="One\n\nTwo\n")

    assert seen.status == 0
    assert [turn["content"] for turn in endpoint.said(CHAT)[1]["messages"]] == [
        "One",
        "Hello there",
        "Two",
    ]


def test_an_error_ends_a_turn_and_not_the_conversation(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    endpoint.statuses[CHAT] = 503
    endpoint.answers[CHAT] = {"error": {"message": "no node is up"}}

    seen = edgeserve("chat", typed="One\nTwo\n")

    assert seen.status == 0
    assert seen.err.count("no node is up") == 2
    assert len(endpoint.said(CHAT)[1]["messages"]) == 1


def test_ctrl_c_stops_the_answer_and_not_the_conversation(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    def interrupted() -> Iterator[bytes]:
        endpoint.answers[CHAT] = chat_stream("Fine")
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            yield chat_event("word ")

    endpoint.answers[CHAT] = interrupted

    seen = edgeserve("chat", typed="One\nTwo\n")

    assert seen.status == 0
    assert seen.out.endswith("Fine\n> \n")
    assert endpoint.left.wait(PATIENCE)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("/help", "/clear"),
        ("/?", "/clear"),
        ("/hlep", "there is no command /hlep; did you mean '/help'?"),
        ("/etc/hosts is what?", "// at the start"),
        ("/model", "* words\n  more-words\n"),
        ("/model more-wrods", "did you mean 'more-words'?"),
        ("/clear", "new conversation"),
    ],
)
def test_a_line_with_a_slash_is_for_us_and_not_for_the_model(
    typed: str, told: str, edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    chatting = [{"id": "words"}, {"id": "more-words", "abilities": ["chat"]}]
    others = [{"id": "vectors", "abilities": ["embeddings"]}]
    endpoint.answers["/v1/models"] = {"data": [*chatting, *others]}

    seen = edgeserve("chat", typed=f"{typed}\n")

    assert (seen.status, endpoint.said(CHAT)) == (0, [])
    assert told in seen.err


@pytest.mark.parametrize("leave", ["/exit", "/quit", "/bye"])
def test_a_conversation_is_left_by_a_command(
    leave: str, edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    assert edgeserve("chat", typed=f"{leave}\nHello\n").status == 0
    assert endpoint.said(CHAT) == []


def test_two_slashes_send_one(edgeserve: Terminal, endpoint: FakeEndpoint) -> None:
    edgeserve("chat", typed="//help me\n")

    (asked,) = endpoint.said(CHAT)
    assert asked["messages"] == [{"role": "user", "content": "/help me"}]


def test_after_clear_only_the_system_message_is_known(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    edgeserve("chat", "--system", "Be brief.", typed="One\n/clear\nTwo\n")

    last = endpoint.said(CHAT)[-1]["messages"]
    assert [turn["content"] for turn in last] == ["Be brief.", "Two"]


def test_another_model_continues_the_conversation(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    endpoint.answers["/v1/models"] = {"data": [{"id": "words"}, {"id": "more"}]}

    edgeserve("chat", typed="One\n/model more\nTwo\n")

    first, second = endpoint.said(CHAT)
    assert (first["model"], second["model"]) == ("words", "more")
    assert len(second["messages"]) == 3


def test_a_model_that_is_loaded_answers_unless_another_is_named(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    big = {"id": "big", "state": "available", "variants": [{"name": "big:Q8_0"}]}
    soon = {"id": "soon", "state": "loading"}
    words = {"id": "words", "state": "loaded"}
    endpoint.answers["/v1/models"] = {"data": [big, soon, words]}

    edgeserve("chat", typed="One\n/model big:q8_0\n/model big:Q8_0\nTwo\n")

    first, second = endpoint.said(CHAT)
    assert (first["model"], second["model"]) == ("words", "big:Q8_0")


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        ([b'data: {"error": {"message": "node lost"}}\n\n'], "node lost"),
        ([], "broke off before its end"),
    ],
)
def test_an_answer_cut_short_never_looks_whole(
    end: list[bytes], sentence: str, edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    endpoint.answers[CHAT] = chat_stream("Hel", end=end)

    seen = edgeserve("chat", "Hi")

    assert seen.status == 1
    assert "Hel" in seen.out
    assert sentence in seen.err


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize("prompt", [(), ("",)])
def test_an_empty_pipe_is_no_question(
    prompt: tuple[str, ...], edgeserve: Terminal
) -> None:
    seen = edgeserve("chat", *prompt, piped="\n")

    assert seen.status == 2
    assert "nothing is asked" in seen.err


def test_letters_that_the_locale_could_not_read_arrive_as_typed(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    typed = "ü?".encode() + b"\xff"

    edgeserve("chat", typed.decode("ascii", "surrogateescape"))

    (turn,) = endpoint.said(CHAT)[0]["messages"]
    assert turn["content"] == "ü?\N{REPLACEMENT CHARACTER}"


def test_a_model_cannot_steer_the_terminal(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    endpoint.answers[CHAT] = chat_stream("a\x1b]0;title\x07b\n\tc\x9bd")

    assert edgeserve("chat", "Hi").out == "a]0;titleb\n\tcd\n"


def test_without_a_model_that_chats_it_says_so(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    endpoint.answers["/v1/models"] = {
        "data": [{"id": "e", "abilities": ["embeddings"]}]
    }

    seen = edgeserve("chat", "Hi")

    assert seen.status == 1
    assert "edgeserve nodes" in seen.err


def test_events_without_text_are_passed_over() -> None:
    lines = [b"event: x\n", b'data: {"choices": []}\n', b"data:[DONE]\n"]

    assert list(chat.pieces(lines)) == []


def test_a_stream_is_read_to_its_very_end() -> None:
    lines = iter([b"data: [DONE]\n", b"\n", b""])

    assert list(chat.pieces(lines)) == []
    assert list(lines) == []


def test_a_stream_that_only_stops_is_an_error() -> None:
    with pytest.raises(NoAnswer):
        list(chat.pieces([]))
