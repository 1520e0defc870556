from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from balancer.api.removal import removal_routes
from edgeserve.errors import NodeLost
from edgeserve.http.server.aiohttp_routes import rendering
from edgeserve.orders.removal import REMOVE

FILES = [{"path": "a-F16.gguf", "bytes": 5, "target": ""}]


@dataclass
class Nodes:
    """Nodes that are up, and what each answers: a status and a body, or nothing."""

    answers: dict[str, tuple[int, Any] | None]
    asked: list[tuple[str, bool]] = field(default_factory=list[tuple[str, bool]])

    @asynccontextmanager
    async def order(
        self, origin: str, path: str, body: bytes
    ) -> AsyncGenerator[SimpleNamespace]:
        assert path == REMOVE
        preview = json.loads(body).get("preview", False)
        self.asked.append((origin, preview))
        found = self.answers[origin]
        if found is None:
            raise NodeLost("it has gone")
        status, content = found
        if callable(content):
            status, content = content(preview)

        async def read() -> bytes:
            return json.dumps(content).encode()

        yield SimpleNamespace(status=status, headers={}, read=read)


def has() -> tuple[int, Any]:
    return 200, {"variants": ["a:F16"], "files": FILES}


def refuses(code: str, status: int = 409) -> tuple[int, Any]:
    return status, {"error": {"message": "not now", "code": code}}


LACKS = refuses("model_not_found", 404)


async def asked(nodes: Nodes, **body: Any) -> tuple[int, Any]:
    fleet = [
        SimpleNamespace(
            id=f"id-of-{name}", name=name, origin=name, state="up", takes_orders=True
        )
        for name in nodes.answers
    ]
    state: Any = SimpleNamespace(
        current=SimpleNamespace(fleet=SimpleNamespace(nodes=fleet))
    )
    client: Any = nodes
    app = web.Application(middlewares=[rendering(2**20)])
    app.add_routes(removal_routes(state, client, lambda _: None))
    async with TestClient(TestServer(app)) as session:
        path = "/edgeserve/v1/models/a:F16/remove"
        async with session.post(path, json=body) as answer:
            return answer.status, await answer.json()


async def test_every_node_that_has_the_model_removes_it_after_all_were_asked() -> None:
    nodes = Nodes({"pi": has(), "nuc": LACKS, "box": has()})

    status, said = await asked(nodes)

    assert status == 200
    assert [each["name"] for each in said["nodes"]] == ["pi", "box"]
    assert said["nodes"][0]["files"] == FILES
    before = [("pi", True), ("nuc", True), ("box", True)]
    assert nodes.asked == [*before, ("pi", False), ("box", False)]


async def test_none_removes_it_while_one_uses_it() -> None:
    nodes = Nodes({"pi": has(), "nuc": refuses("model_in_use")})

    status, said = await asked(nodes)

    assert (status, said["error"]["code"]) == (409, "model_in_use")
    assert said["error"]["message"] == "nuc: not now"
    assert all(preview for _, preview in nodes.asked)


async def test_a_preview_asks_and_removes_nothing() -> None:
    nodes = Nodes({"pi": has()})

    status, said = await asked(nodes, preview=True)

    assert (status, len(said["nodes"])) == (200, 1)
    assert nodes.asked == [("pi", True)]


async def test_one_node_alone_can_be_named() -> None:
    nodes = Nodes({"pi": has(), "nuc": has()})

    status, said = await asked(nodes, node="nuc")
    unknown, _ = await asked(nodes, node="attic")

    assert (status, unknown) == (200, 404)
    assert [each["name"] for each in said["nodes"]] == ["nuc"]
    assert {name for name, _ in nodes.asked} == {"nuc"}


async def test_a_model_that_no_node_has_is_not_found() -> None:
    status, said = await asked(Nodes({"pi": LACKS}))

    assert (status, said["error"]["code"]) == (404, "model_not_found")


async def test_a_refusal_after_others_have_removed_it_says_so() -> None:
    late = (0, lambda preview: has() if preview else refuses("model_in_use"))
    status, said = await asked(Nodes({"pi": has(), "nuc": late}))

    assert status == 409
    assert said["error"]["message"] == "nuc: not now; it was removed from pi"


@pytest.mark.parametrize(
    ("answer", "status", "sentence"),
    [
        (None, 502, "pi does not answer"),
        ((500, "what?"), 500, "without a reason"),
        (refuses("not_found", 404), 404, "not now"),
        ((200, {"files": 7}), 502, "pi"),
    ],
)
async def test_a_node_that_answers_oddly_is_named(
    answer: tuple[int, Any] | None, status: int, sentence: str
) -> None:
    seen, said = await asked(Nodes({"pi": answer}))

    assert seen == status
    assert sentence in said["error"]["message"]
