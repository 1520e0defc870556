"""A client that leaves gives its slot back, on a real engine."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest

from tests.endpoint.conftest import MODEL, Endpoint

pytestmark = pytest.mark.engine


def busy(endpoint: Endpoint) -> int:
    with urllib.request.urlopen(f"{endpoint.node_url}/edgeserve/v1/node") as response:
        report = json.load(response)
    return sum(engine["busy"] for engine in report["engines"])


@pytest.fixture
def bound(endpoint: Endpoint) -> float:
    """Return half the seconds that this machine takes for 900 tokens, or five."""
    began = time.monotonic()
    endpoint.client.completions.create(
        model=MODEL, prompt="Once", max_tokens=30, extra_body={"ignore_eos": True}
    )
    return max(5.0, (time.monotonic() - began) / 30 * 450)


def until_busy(endpoint: Endpoint, wanted: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if busy(endpoint) == wanted:
            return True
        time.sleep(0.05)
    return False


def test_a_client_that_leaves_mid_stream_frees_its_slot(
    endpoint: Endpoint, bound: float
) -> None:
    stream = endpoint.client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Tell a long story."}],
        max_tokens=900,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    assert until_busy(endpoint, 1, bound)

    stream.close()

    assert until_busy(endpoint, 0, bound)


def test_a_client_that_leaves_before_its_whole_answer_frees_its_slot(
    endpoint: Endpoint, bound: float
) -> None:
    body = {"model": MODEL, "prompt": "Once", "max_tokens": 900, "ignore_eos": True}
    request = urllib.request.Request(
        f"{endpoint.url}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(request, timeout=1.0).read()

    assert until_busy(endpoint, 0, bound)
