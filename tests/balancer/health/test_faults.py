"""A 5xx is judged by what it means."""

from __future__ import annotations

import json

import pytest

from balancer.health.faults import failure_of, fault_of_loss


def error(message: str, code: int = 500) -> bytes:
    return json.dumps({"error": {"message": message, "code": code}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (200, b"", "none"),
        (400, error("bad"), "none"),
        (404, error("no such model"), "none"),
        (429, error("full"), "none"),
        (501, error("This server does not support embeddings"), "none"),
        (503, error("Loading model", 503), "none"),
        (401, error("Invalid API Key"), "node"),
        (403, error("no"), "node"),
        (502, error("the engine hung up"), "engine"),
        (504, error("the engine is silent"), "engine"),
        (500, error("Compute error."), "engine"),
        (500, error("Invalid input batch."), "engine"),
        (500, error("got exception: out of memory"), "engine"),
        (500, b"Internal Server Error", "engine"),
        (500, b"", "engine"),
        (500, error("image input is not supported - hint: ..."), "none"),
        (500, error("vector::_M_range_check: __n (which is 9)"), "none"),
        (500, error("Context size has been exceeded."), "none"),
        (500, error("Cannot use both json_schema and grammar"), "doubt"),
        (500, error("something nobody has seen"), "doubt"),
    ],
)
def test_blame(status: int, body: bytes, fault: str) -> None:
    assert failure_of(status, body).fault == fault


def test_a_node_that_cannot_be_reached_is_not_its_engines_fault() -> None:
    assert fault_of_loss(connected=False) == "node"
    assert fault_of_loss(connected=True) == "engine"
