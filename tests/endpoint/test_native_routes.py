"""llama.cpp's own routes through the endpoint, on a real engine."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.endpoint.conftest import MODEL, Endpoint
from tests.patience import PATIENCE

pytestmark = pytest.mark.engine


def post(endpoint: Endpoint, path: str, **fields: object) -> dict[str, Any]:
    request = urllib.request.Request(
        endpoint.url + path,
        data=json.dumps({"model": f"{MODEL}:Q4_1", **fields}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def test_completion_answers_in_llama_cpps_format(endpoint: Endpoint) -> None:
    answer = post(endpoint, "/completion", prompt="One two three", n_predict=4)

    assert answer["content"]
    assert answer["timings"]["predicted_n"] == 4


def test_routes_without_v1_are_those_of_llama_cpp(endpoint: Endpoint) -> None:
    hello = [{"role": "user", "content": "Hi"}]
    native = post(endpoint, "/completions", prompt="One two three", n_predict=4.0)
    chat = post(endpoint, "/chat/completions", messages=hello, max_tokens="4")
    counted = post(endpoint, "/v1/chat/completions/input_tokens", messages=hello)
    vectors = post(endpoint, "/embedding", content="One two three")

    assert native["timings"]["predicted_n"] == 4
    assert chat["usage"]["completion_tokens"] == 4
    assert counted["input_tokens"] == chat["usage"]["prompt_tokens"]
    assert vectors


@pytest.mark.parametrize("path", ["/props", "/slots"])
def test_an_engine_is_described(endpoint: Endpoint, path: str) -> None:
    url = f"{endpoint.url}{path}?model={MODEL}:Q4_1"
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        said = json.load(response)

    assert (said["total_slots"] if path == "/props" else len(said)) == 2


def test_tokens_go_there_and_back(endpoint: Endpoint) -> None:
    tokens = post(endpoint, "/tokenize", content="Hello, world")["tokens"]

    assert post(endpoint, "/detokenize", tokens=tokens)["content"] == "Hello, world"


def test_the_chat_template_is_applied(endpoint: Endpoint) -> None:
    answer = post(
        endpoint, "/apply-template", messages=[{"role": "user", "content": "Hi"}]
    )

    assert "<|im_start|>user\nHi" in answer["prompt"]


def test_the_responses_api_answers(endpoint: Endpoint) -> None:
    answer = post(endpoint, "/v1/responses", input="Say hello", max_output_tokens=6)

    assert answer["object"] == "response"
    assert answer["output"]


def test_the_messages_api_answers(endpoint: Endpoint) -> None:
    answer = post(
        endpoint,
        "/v1/messages",
        messages=[{"role": "user", "content": "Say hello"}],
        max_tokens=6,
    )

    assert answer["type"] == "message"
    assert answer["content"][0]["text"]


HELLO = {"messages": [{"role": "user", "content": "Say hello"}], "max_tokens": 6}
ROUTES = (
    ("/v1/responses", {"input": "Say hello", "max_output_tokens": 6, "temperature": 0}),
    ("/v1/messages", {**HELLO, "temperature": 0}),
)


def record(shown: str) -> dict[str, Any]:
    with urllib.request.urlopen(shown, timeout=PATIENCE) as response:
        found: dict[str, Any] = json.load(response)
        return found


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("path", "fields"), ROUTES)
def test_what_a_route_without_timings_did_is_known(
    endpoint: Endpoint, path: str, fields: dict[str, Any], stream: bool
) -> None:
    request = urllib.request.Request(
        endpoint.url + path,
        # The other variant may begin with an emoji; then llama.cpp omits the head.
        data=json.dumps(
            {"model": f"{MODEL}:Q4_1", "stream": stream, **fields}
        ).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        said = response.read()
        id_ = response.headers["x-edgeserve-request-id"]
    shown = f"{endpoint.url}/edgeserve/v1/requests/{id_}"
    while (known := record(shown))["state"] != "done":
        time.sleep(0.05)  # the client has its last byte a moment before
    actual = known["attempts"][-1]["actual"]

    assert b"prompt_progress" not in said
    assert actual["prompt_tokens"] > 10
    assert actual["answer_tokens"] == 6
    assert not stream or actual["tokens_per_second"] > 0


def test_a_streamed_message_has_a_head_though_it_begins_with_an_emoji(
    endpoint: Endpoint,
) -> None:
    asked = {"role": "user", "content": "Answer with one emoji only: 😀🎉🚀❤️ 🙂 "}
    body = {"model": f"{MODEL}:Q4_1", "messages": [asked], "max_tokens": 6}
    request = urllib.request.Request(
        f"{endpoint.url}/v1/messages",
        data=json.dumps({**body, "stream": True, "temperature": 0}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        events = response.read().decode().split("\n\n")

    first = json.loads(events[0].partition("data: ")[2])
    assert first["type"] == "message_start"
    assert first["message"]["model"] == f"{MODEL}:Q4_1"
    assert sum(each.startswith("event: message_start") for each in events) == 1


def test_a_model_without_infill_tokens_says_so(endpoint: Endpoint) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(endpoint, "/infill", input_prefix="def f(", input_suffix="pass")

    assert refused.value.code in {400, 501}
    assert "error" in json.load(refused.value)


def test_rerank_without_such_an_engine_says_what_is_missing(endpoint: Endpoint) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(endpoint, "/v1/rerank", query="cat", documents=["a cat", "a dog"])

    assert 400 <= refused.value.code < 500
    assert "rerank" in json.load(refused.value)["error"]["message"]
