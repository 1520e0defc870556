"""Lines and bodies as Ollama writes them, for what engines write."""

from __future__ import annotations

import json
from typing import Any

from balancer.ollama.answers import Moment, WrittenAnswer, answer_to, error_body
from balancer.ollama.requests import EngineRequest, Shape
from edgeserve.errors import UnknownModel
from tests.balancer.broken_streams import DONE, sse, timings, usage

NOW = Moment(1_790_000_000.5, 2.0)
AT = "2026-09-21T14:13:20.500000Z"


def answer(shape: Shape = "chat") -> WrittenAnswer:
    return WrittenAnswer(EngineRequest(shape=shape, model="m:latest", path="/x"))


def chunk(finish: str | None = None, **delta: Any) -> bytes:
    return sse({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def lines(answer: WrittenAnswer, *events: bytes) -> list[Any]:
    out = b"".join(answer.feed(each, NOW) for each in events) + answer.end(NOW)
    return [json.loads(line) for line in out.splitlines()]


def test_a_stream_is_written_as_lines_with_the_counts_in_the_last() -> None:
    told = answer()
    out = told.feed(chunk(role="assistant", content=None), NOW)
    out += told.feed(chunk(content="Hé"), NOW) + told.feed(chunk("length"), NOW)
    counted = {"choices": [], "usage": usage(3, 1), "timings": timings(3, 1)}
    out += told.feed(sse(counted) + DONE, NOW) + told.end(NOW)

    assert out.decode() == (
        f'{{"model":"m:latest","created_at":"{AT}","message":'
        '{"role":"assistant","content":"Hé"},"done":false}\n'
        f'{{"model":"m:latest","created_at":"{AT}","message":'
        '{"role":"assistant","content":""},"done":true,"done_reason":"length",'
        '"total_duration":2000000000,"load_duration":1965000000,'
        '"prompt_eval_count":3,"prompt_eval_duration":15000000,'
        '"eval_count":1,"eval_duration":20000000}\n'
    )


def test_thoughts_have_a_field_of_their_own_in_both_routes() -> None:
    thought, text = chunk(reasoning_content="hm"), chunk(content="yes")

    first, second, _ = lines(answer(), thought, text, chunk("stop"))
    assert first["message"] == {"role": "assistant", "content": "", "thinking": "hm"}
    assert second["message"] == {"role": "assistant", "content": "yes"}
    first, second, last = lines(answer("generate"), thought, text, chunk("stop"))
    assert (first["response"], first["thinking"]) == ("", "hm")
    assert (second["response"], last["response"], last["done"]) == ("yes", "", True)


def test_calls_of_tools_come_whole_with_arguments_as_objects() -> None:
    def part(index: int, arguments: str, **names: str) -> bytes:
        function = {"arguments": arguments} | (
            {"name": n} if (n := names.get("name")) else {}
        )
        return chunk(
            tool_calls=[{"index": index, "id": names.get("id"), "function": function}]
        )

    *_, called, last = lines(
        answer(),
        part(0, '{"a":', name="sum", id="c1"),
        part(0, "1}"),
        part(1, "", name="now", id="c2"),
        chunk("tool_calls"),
        DONE,
    )

    assert called["message"]["tool_calls"] == [
        {"id": "c1", "function": {"index": 0, "name": "sum", "arguments": {"a": 1}}},
        {"id": "c2", "function": {"index": 1, "name": "now", "arguments": {}}},
    ]
    assert (called["done"], last["done"], last["done_reason"]) == (False, True, "stop")


def test_a_whole_answer_is_one_object() -> None:
    function = {"name": "sum", "arguments": '{"a": 1}'}
    call = {"type": "function", "id": "c", "function": function}
    message = {"role": "assistant", "content": "x", "tool_calls": [call]}
    choice = {"finish_reason": "tool_calls", "index": 0, "message": message}
    body = {"choices": [choice], "usage": usage(3, 5)}
    told = json.loads(answer().whole(json.dumps(body).encode(), NOW))

    assert told["message"]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert (told["message"]["content"], told["done"]) == ("x", True)
    assert (told["prompt_eval_count"], told["eval_count"]) == (3, 5)


def test_llama_cpps_own_stream_ends_without_a_mark() -> None:
    end = {"content": "", "stop": True, "stop_type": "limit"}
    first, last = lines(
        answer("generate"),
        sse({"content": "a", "stop": False, "tokens_predicted": 1}),
        sse({**end, "tokens_predicted": 1, "tokens_evaluated": 4}),
    )

    assert first["response"] == "a"
    assert (last["done_reason"], last["eval_count"]) == ("length", 1)
    assert last["prompt_eval_count"] == 4


def test_a_comment_keeps_the_connection_with_a_line_without_text() -> None:
    (line,) = answer().feed(b": waiting for a slot\n\n", NOW).splitlines()

    assert json.loads(line)["message"]["content"] == ""


def test_a_failure_in_the_midst_is_the_last_line() -> None:
    broken = {"error": {"message": "it broke off", "code": "node_lost"}}

    assert lines(answer(), chunk(content="a"), sse(broken))[1:] == [
        {"error": "it broke off"}
    ]


def test_an_error_is_a_sentence() -> None:
    error = UnknownModel("huge", [])

    assert json.loads(error_body(error.body())) == {"error": str(error)}


def test_a_shorter_embedding_has_length_one() -> None:
    asked = EngineRequest(shape="embed", model="m", path="/x", dimensions=2)
    rows = [{"index": 0, "embedding": [3.0, 4.0, 12.0]}]
    told = json.loads(answer_to(asked).whole(json.dumps({"data": rows}).encode(), NOW))

    assert told["embeddings"] == [[0.6, 0.8]]


def test_loading_and_unloading_say_what_they_were() -> None:
    for loads in (True, False):
        asked = EngineRequest(shape="generate", model="m", loads=loads)
        told = json.loads(answer_to(asked).whole(b"", NOW))

        assert told["done_reason"] == ("load" if loads else "unload")
        assert (told["response"], told["done"]) == ("", True)
