import json

import pytest

from balancer.health.faults import NextStep, failure_of
from edgeserve.openai import code, message


def error(**fields: object) -> bytes:
    return json.dumps({"error": fields}).encode()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, error(type="invalid_request_error"), "pass"),
        (400, error(type="exceed_context_size_error", n_ctx=512), "longer"),
        (404, error(type="not_found_error", message="File Not Found"), "pass"),
        (500, error(type="server_error", message="image input"), "pass"),
        (500, b"<html>", "pass"),
        (501, error(type="not_supported_error"), "pass"),
        (503, error(type="unavailable_error", message="Loading model"), "elsewhere"),
        (503, error(code="draining"), "elsewhere"),
        (502, error(code="node_lost"), "elsewhere"),
        (401, error(code="unauthorized"), "elsewhere"),
        (404, error(code="model_not_found"), "elsewhere"),
        (429, error(code="fleet_busy"), "full"),
    ],
)
def test_an_error_is_judged_by_what_it_means(
    status: int, body: bytes, expected: NextStep
) -> None:
    assert failure_of(status, body).next_step == expected


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"error": "x"}', b'{"error": null}', b"\xff", b"no"]
)
def test_a_body_that_is_no_envelope_has_no_code(body: bytes) -> None:
    assert code(body) == ""


def test_the_sentence_is_found_or_the_beginning_stands_for_it() -> None:
    assert message(error(message="no room")) == "no room"
    assert message(b"Bad Gateway") == "Bad Gateway"
