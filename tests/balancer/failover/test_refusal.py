"""Errors of an engine, set right where they would mislead a client."""

from __future__ import annotations

import json
from typing import Any

import pytest

from balancer.failover.refusal import EngineRefusal
from edgeserve.openai import anthropic

HINT = " - hint: if this is unexpected, you may need to provide the mmproj"
NO_FIM = "Infill is not supported by this model: prefix token is missing. "


def refused(status: int, message: str, **facts: Any) -> EngineRefusal:
    error = {"code": status, "message": message, "type": "server_error", **facts}
    return EngineRefusal(status, {}, json.dumps({"error": error}).encode())


def said(error: EngineRefusal) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(error.body())["error"]
    assert found == error.envelope()
    return found


def too_long() -> EngineRefusal:
    facts = {"n_prompt_tokens": 3031, "n_ctx": 1024}
    kind = "exceed_context_size_error"
    return refused(400, "request exceeds the context size", type=kind, **facts)


def test_a_context_that_is_too_short_has_openais_code_and_llama_cpps_facts() -> None:
    error = too_long()
    told = said(error)

    assert (error.status, told["code"]) == (400, "context_length_exceeded")
    assert told["type"] == "exceed_context_size_error"
    assert (told["n_prompt_tokens"], told["n_ctx"]) == (3031, 1024)
    assert "3031" in told["message"]
    assert "1024" in told["message"]
    assert "shorten" in told["message"]


def test_anthropics_clients_read_the_same() -> None:
    told = anthropic(too_long(), "req-1")

    assert told["type"] == "error"
    assert told["error"]["type"] == "invalid_request_error"
    assert "prompt is too long" in told["error"]["message"]
    assert told["request_id"] == "req-1"


@pytest.mark.parametrize(
    ("status", "message", "todo"),
    [
        (500, "image input is not supported" + HINT, "no engine of this model"),
        (500, "audio input is not supported" + HINT, "no engine of this model"),
        (500, "vector::_M_range_check: __n (which is 99999999)", "99999999"),
        (500, "input (900 tokens) is too large to process", "900 tokens"),
        (501, NO_FIM, "trained to fill in"),
        (501, "This server does not support embeddings. Start it", "embedding model"),
        (501, "The current model does not support audio input.", "audio"),
    ],
)
def test_what_can_never_succeed_is_not_to_be_tried_again(
    status: int, message: str, todo: str
) -> None:
    error = refused(status, message)

    assert error.status == 400
    assert (said(error)["code"], said(error)["type"]) == (400, "invalid_request_error")
    assert todo in str(error)
    assert todo in said(error)["message"]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, "Compute error."),
        (500, "something that nobody knows"),
        (500, "Context size has been exceeded."),
        (400, "'messages' is required"),
        (404, "File Not Found"),
    ],
)
def test_anything_else_passes_in_its_very_bytes(status: int, message: str) -> None:
    error = refused(status, message)

    assert error.status == status
    assert said(error)["code"] == status


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": "x"}', b"\xff"])
def test_what_is_no_error_of_llama_cpp_passes_too(body: bytes) -> None:
    error = EngineRefusal(500, {}, body)

    assert (error.status, error.body()) == (500, body)
    assert error.envelope()["type"] == "server_error"
