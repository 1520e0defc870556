"""Node client: what each request to a node carries."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from balancer.discovery.node_client import NodeClient
from edgeserve.http.types import Answer, Origin, Request
from edgeserve.wire import BALANCER_HEADER, REQUEST_HEADER, VARIANT_HEADER
from tests.balancer.building import HERE, a_candidate

TO = a_candidate()
CLIENTS = {
    "authorization": "Bearer client-key",
    "x-api-key": "client-key",
    "cookie": "a=b",
    "x-conversation-id": "c1",
    "accept-encoding": "gzip",
    "x-custom": "kept",
}


class Recorder:
    """An upstream that keeps what it is asked."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.line = ""

    def ask(
        self,
        origin: Origin,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
    ) -> AbstractAsyncContextManager[Answer]:
        self.headers = dict(headers)
        self.line = f"{method} {origin.url}{target} {body.decode()}".rstrip()
        answer: Any = None
        return nullcontext(answer)


async def forwarded() -> Recorder:
    upstream = Recorder()
    request = Request("POST", "/v1/completions", "a=1", CLIENTS, b"theirs", "")
    async with NodeClient(upstream).forward(TO, request, "r1", b"ours"):
        return upstream


async def test_a_clients_secrets_stay_here() -> None:
    asked = await forwarded()

    assert asked.line == f"POST {HERE.url}/v1/completions?a=1 ours"
    assert asked.headers == {
        "x-custom": "kept",
        "content-type": "application/json",
        VARIANT_HEADER: TO.engine.id,
        REQUEST_HEADER: "r1",
        BALANCER_HEADER: asked.headers[BALANCER_HEADER],
    }


async def test_a_probe_names_its_engine_and_says_that_it_is_one() -> None:
    upstream = Recorder()

    client = NodeClient(upstream)
    async with client.probe(TO, "/completion", b"{}"):
        assert upstream.line == f"POST {HERE.url}/completion {{}}"
    assert upstream.headers == {
        "content-type": "application/json",
        VARIANT_HEADER: TO.engine.id,
        REQUEST_HEADER: "probe",
        BALANCER_HEADER: client.id,
    }
