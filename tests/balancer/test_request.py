import json
from typing import Any

import pytest

from balancer.request import (
    InferenceRequest,
    deadline_seconds,
    read_request,
    request_id,
)
from edgeserve.errors import BadRequest
from edgeserve.openai import ROUTES
from edgeserve.wire import REQUEST_HEADER
from tests.balancer.endpoint import CHAT, chat
from tests.fakes.reports import an_engine

ENGINE = an_engine("small:Q4_1")


def work(path: str = CHAT, **fields: Any) -> InferenceRequest:
    return read_request(ROUTES[path], json.dumps(fields).encode())


def sent(each: InferenceRequest) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(each.body_for(ENGINE))
    return body


def test_a_client_that_streams_gets_its_body_through_but_for_the_model() -> None:
    asked = chat(stream=True, grammar="root ::= x", unknown={"a": 1.0})

    progress = {"return_progress": True}
    assert sent(work(**asked)) == asked | {"model": "small:Q4_1"} | progress


@pytest.mark.parametrize(
    ("path", "told"),
    [(CHAT, True), ("/v1/responses", True), ("/v1/messages", None)],
)
def test_engines_are_asked_how_far_they_have_read_where_it_can_be_taken_out(
    path: str, told: bool | None
) -> None:
    body = sent(work(path, messages=["x"], input="x", stream=True))

    assert body.get("return_progress") == told


def test_a_client_that_does_not_stream_is_streamed_for() -> None:
    body = sent(work(**chat(stream=False, stream_options={"x": 1})))

    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("path", ["/completion", "/v1/responses", "/v1/messages"])
def test_only_openais_older_dialects_have_stream_options(path: str) -> None:
    assert "stream_options" not in sent(
        work(path, prompt="x", input="x", messages=["x"])
    )


@pytest.mark.parametrize("key", ["id_slot", "lora"])
def test_what_speaks_of_an_engines_insides_is_stripped(key: str) -> None:
    assert key not in sent(work(**chat() | {key: 1}))


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (CHAT, {"logprobs": True}),
        (CHAT, {"top_logprobs": 2}),
        ("/v1/completions", {"logprobs": 3}),
        ("/completion", {"n_probs": 2}),
        ("/completion", {"return_tokens": True}),
        ("/completion", {"response_fields": ["content"]}),
        (CHAT, {"continue_final_message": True}),
        (CHAT, {"messages": [{"role": "assistant", "content": "Once"}]}),
        ("/v1/messages", {"messages": [{"role": "assistant", "content": "Once"}]}),
        ("/v1/responses", {"input": [{"role": "assistant", "content": "Once"}]}),
    ],
)
def test_an_answer_that_a_stream_would_not_hold_whole_passes_as_it_is(
    path: str, field: dict[str, Any]
) -> None:
    each = work(path, **field)

    assert each.mode == "whole"
    assert "stream" not in sent(each)


@pytest.mark.parametrize(
    "field", [{"logprobs": False}, {"logprobs": 0}, {"n_probs": 0}]
)
def test_a_field_that_is_off_is_as_if_left_out(field: dict[str, Any]) -> None:
    assert work(**chat(**field)).mode == "aggregate"


@pytest.mark.parametrize("path", [p for p, r in ROUTES.items() if r.dialect == "plain"])
def test_what_never_streams_passes_as_it_is(path: str) -> None:
    assert work(path, input="x", stream=True).mode == "whole"


def test_what_routing_needs_is_read_from_the_body() -> None:
    routing = work(**chat(model="Small.gguf:q4_1", n=3)).routing

    assert (routing.model, routing.ability, routing.slots) == ("small:Q4_1", "chat", 3)


def test_images_are_noticed_and_talk_of_them_is_not() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:…"}}

    assert work(messages=[{"role": "user", "content": [part]}]).routing.media
    assert not work(**chat('what is "image_url"?')).routing.media


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"model": 3}', b'{"stream": "yes"}', b'{"max_tokens": "x"}',
     b'{"n": 1.5}', b"\xff", b'{"messages":' + b"[" * 100_000],
)  # fmt: skip
def test_a_body_that_makes_no_sense_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read_request(ROUTES[CHAT], body)


@pytest.mark.parametrize("messages", [[3], ["x"], [{"role": 3}], [None], [[]]])
def test_odd_messages_are_left_to_the_engine(messages: Any) -> None:
    assert work(model="small", messages=messages).mode == "aggregate"


def test_a_sane_request_id_is_kept() -> None:
    assert request_id({REQUEST_HEADER: "my.id-1_a:b"}) == "my.id-1_a:b"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "a\nb", "ü", "<script>"])
def test_an_id_that_is_not_sane_is_replaced(given: str) -> None:
    assert request_id({REQUEST_HEADER: given}).startswith("req-")


def test_ids_differ() -> None:
    assert request_id({}) != request_id({})


def test_a_deadline_is_in_milliseconds() -> None:
    assert deadline_seconds({"x-edgeserve-deadline-ms": "1500"}) == 1.5
    assert deadline_seconds({}) is None


@pytest.mark.parametrize("given", ["", "0", "-5", "1.5", "soon", "²"])
def test_a_deadline_that_is_no_number_is_refused(given: str) -> None:
    with pytest.raises(BadRequest, match="deadline"):
        deadline_seconds({"x-edgeserve-deadline-ms": given})


@pytest.mark.parametrize(
    ("path", "field"),
    [("/v1/chat/completions", "messages"), ("/v1/responses", "input")],
)
def test_more_messages_than_any_conversation_has_are_refused(
    path: str, field: str
) -> None:
    body = json.dumps({"model": "m", field: [{}] * 10_001}).encode()

    with pytest.raises(BadRequest, match="10001 messages; at most 10000"):
        read_request(ROUTES[path], body)


def test_more_prompts_than_a_list_may_hold_are_refused() -> None:
    body = json.dumps({"model": "m", "prompt": ["a"] * 10_001}).encode()

    with pytest.raises(BadRequest, match="list_entries"):
        read_request(ROUTES["/v1/completions"], body)


def test_a_prompt_of_many_tokens_is_one() -> None:
    body = json.dumps({"model": "m", "prompt": [1] * 100_000}).encode()

    assert read_request(ROUTES["/v1/completions"], body).ends == 1
