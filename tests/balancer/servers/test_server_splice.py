"""No text is lost or doubled where an answer goes on at, or from, another program."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import pytest

from balancer.dialects.chat import Chat
from balancer.dialects.completion import Completion
from balancer.failover.resume import Finish, Resume, resume
from balancer.routing.decision import Send
from balancer.servers.stream import ServerEvents, ServerStream
from edgeserve.openai import ROUTES
from edgeserve.served import Served
from edgeserve.servers.requests import LLAMA_FIELDS, portable_body
from edgeserve.wire import EngineReport
from tests.balancer.broken_streams import Engine, data_of, text_of
from tests.fakes.continuing import QUESTION, events, rest_of, written
from tests.fakes.reports import an_engine
from tests.fakes.servers import DONE, USAGE_CHUNK, chunk

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
TEXTS: list[tuple[str, ...]] = [
    ("Hello", " there", ",", " you", "."),
    ("A", " \n", "\n", "B", "\n\n", "  C", " ", " ", "D"),
    (" ", "\n", "Hi"),
    ("def f():", "\n", "    ", "return", " ", "1", "\n"),
    ("日本", "語", " é", "\u2003", "😀", "\u00a0", "ß"),
    ("", "x", "", " ", "y", ""),
    ("a", " ", "\n"),
]


def a_server(kind: str = "openai") -> EngineReport:
    return an_engine(
        "small",
        kind="server",
        build=kind,
        served=Served(resumes=("chat", "completion")),
    )


def asked(path: str, **fields: object) -> bytes:
    body = {"model": "m", "stream": True, "temperature": 0, **fields}
    if path == CHAT:
        return json.dumps(
            {**body, "messages": [{"role": "user", "content": "?"}]}
        ).encode()
    return json.dumps({**body, "prompt": QUESTION}).encode()


def told_to(body: bytes) -> str:
    """What a server is to go on after."""
    fields = json.loads(body)
    if "prompt" in fields:
        return str(fields["prompt"]).removeprefix(QUESTION)
    last = fields["messages"][-1]
    return str(last["content"]) if last["role"] == "assistant" else ""


def gone_on(
    plan: Resume, pieces: Sequence[str], *, chat: bool, each: int, trims: bool
) -> bytes:
    """Go on at a server, whose bytes come in pieces of `each`."""
    engine = a_server()
    rest = rest_of(pieces, told_to(plan.body_for(engine)), trims=trims)
    stream = written(rest, chat=chat, role=True)
    reader = plan.reader_for(Send(None, 1), engine)  # type: ignore[arg-type]
    out = b"".join(
        reader.feed(stream[at : at + each]) for at in range(0, len(stream), each)
    )
    assert reader.ended
    return out


@pytest.mark.parametrize("trims", [False, True])
@pytest.mark.parametrize("path", [CHAT, COMPLETION])
@pytest.mark.parametrize("pieces", TEXTS, ids=range(len(TEXTS)))
def test_an_answer_of_a_node_is_whole_wherever_it_is_cut_and_goes_on_at_a_server(
    pieces: Sequence[str], path: str, trims: bool
) -> None:
    chat = path == CHAT
    stream = Engine().chat(pieces) if chat else Engine().completion(pieces)
    parts = [each + b"\n\n" for each in stream.split(b"\n\n")]
    for count in range(1, len(pieces) + chat):
        given = b"".join(parts[:count])
        for size in (1, 1 << 20):
            plan = resume(asked(path), ROUTES[path], [given])
            assert isinstance(plan, Resume)
            out = gone_on(plan, pieces, chat=chat, each=size, trims=trims)

            assert text_of(given + out) == "".join(pieces)
            assert out.endswith(DONE)


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
@pytest.mark.parametrize("pieces", TEXTS, ids=range(len(TEXTS)))
def test_an_answer_of_a_server_is_whole_wherever_it_is_cut_and_goes_on_at_a_node(
    pieces: Sequence[str], path: str
) -> None:
    chat = path == CHAT
    dialect = Chat if chat else Completion
    parts = events(pieces, chat=chat, role=True)
    for count in range(1, len(pieces) + 1):
        reader = ServerStream(dialect=dialect, source=ServerEvents(hides_usage=True))
        given = b"".join(map(reader.feed, parts[: count + 1]))
        if not reader.begun:
            continue
        plan = resume(asked(path), ROUTES[path], [given])
        assert isinstance(plan, Resume)
        node = an_engine()
        rest = rest_of(pieces, told_to(plan.body_for(node)))
        other = Engine("b")
        stream = other.chat(rest, mending=True) if chat else other.completion(rest)
        splice = plan.reader_for(Send(None, 1), node)  # type: ignore[arg-type]

        assert text_of(given + splice.feed(stream)) == "".join(pieces)
        assert splice.ended


BUDGETS = {"max_tokens", "max_completion_tokens"}


def test_the_server_gets_none_of_our_fields_and_what_keeps_the_message_open() -> None:
    given = written(["One", " "])[: -len(DONE)].rpartition(b"data: ")[0]
    plan = resume(asked(CHAT, max_completion_tokens=9), ROUTES[CHAT], [given])
    assert isinstance(plan, Resume)
    bodies = {
        kind: json.loads(plan.body_for(a_server(kind)))
        for kind in ("vllm", "sglang", "tgi", "ollama", "openai")
    }

    for kind, body in bodies.items():
        assert not body.keys() & {*LLAMA_FIELDS}
        assert body["messages"][-1] == {"role": "assistant", "content": "One"}
        budget = "max_tokens" if kind == "tgi" else "max_completion_tokens"
        assert (body[budget], len(body.keys() & BUDGETS)) == (7, 1)
        opened = kind in {"vllm", "sglang"}
        assert body.get("continue_final_message") == (True if opened else None)
        assert body.get("add_generation_prompt") == (False if opened else None)


@pytest.mark.parametrize(
    ("tail", "ended", "failed"),
    [
        pytest.param([chunk({}, "stop"), DONE], True, False, id="whole"),
        pytest.param([chunk({}, "stop")], True, False, id="without [DONE]"),
        pytest.param([chunk({}, "stop"), USAGE_CHUNK], True, False, id="with usage"),
        pytest.param([], False, False, id="cut short"),
        pytest.param(
            [b'data: {"error": {"code": 500}}\n\n', DONE], False, True, id="error"
        ),
        pytest.param([chunk({}, "abort"), DONE], False, True, id="aborted"),
    ],
)
def test_how_the_rest_of_an_answer_ends_is_understood(
    tail: list[bytes], ended: bool, failed: bool
) -> None:
    plan = resume(asked(CHAT), ROUTES[CHAT], [chunk({"content": "One"})])
    assert isinstance(plan, Resume)
    reader = plan.reader_for(Send(None, 1), a_server())  # type: ignore[arg-type]
    out = reader.feed(b"".join([chunk({"content": " two"}), *tail]))
    out += reader.finish()

    assert (reader.ended, reader.error is not None) == (ended, failed)
    assert b"usage" not in out
    assert out.endswith(DONE) == ended
    assert text_of(out) == " two"


def test_usage_is_that_of_the_whole_answer() -> None:
    body = asked(CHAT, stream_options={"include_usage": True})
    given = chunk({"content": "One"}) + chunk({"content": " "})
    plan = resume(body, ROUTES[CHAT], [given], prompt_tokens=8)
    assert isinstance(plan, Resume)
    reader = plan.reader_for(Send(None, 1), a_server())  # type: ignore[arg-type]
    rest = [chunk({"content": each}) for each in (" ", "two")]
    out = reader.feed(b"".join([*rest, chunk({}, "stop"), USAGE_CHUNK, DONE]))

    (usage,) = [each["usage"] for each in data_of(out) if "usage" in each]
    assert usage["completion_tokens"] == 3  # one of the two white spaces is not given
    assert usage["total_tokens"] == usage["prompt_tokens"] + 3


def test_an_answer_that_lacks_only_its_end_needs_no_engine() -> None:
    plan = resume(asked(CHAT), ROUTES[CHAT], [written(["One"])[: -len(DONE)]])

    assert plan == Finish(DONE)


def test_reasoning_goes_on_at_nodes_only() -> None:
    given = chunk({"reasoning_content": "hm"}) + chunk({"content": "One"})
    plan = resume(asked(CHAT), ROUTES[CHAT], [given])

    assert isinstance(plan, Resume)
    assert plan.portable is None
    assert b"reasoning_content" in plan.body


def test_a_trailing_message_of_the_client_is_continued_as_llama_cpp_does() -> None:

    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "A"}]
    body = msgspec.json.encode({"model": "m", "messages": messages})
    own = msgspec.json.encode({"messages": messages, "continue_final_message": False})

    assert b'"continue_final_message":true' in portable_body(body, a_server("vllm"), {})
    assert b"add_generation" not in portable_body(own, a_server("vllm"), {})
    assert b"continue" not in portable_body(body, a_server("tgi"), {})
