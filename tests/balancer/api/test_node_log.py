"""A node's log, through the balancer: for admin keys, and with a sentence if not."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from balancer.api import nodes
from balancer.clients.keys import ClientKey, key_id
from balancer.clients.store import add_key, store_in
from balancer.discovery.events import ReconnectPolicy
from edgeserve.config.paths import admin_key_file
from edgeserve.orders.log import LogLine
from edgeserve.security.tokens import new_secret
from tests.balancer.endpoint import Answered, Endpoint, endpoint
from tests.fakes.node import FakeNode, fake_node
from tests.patience import PATIENCE

PATH = "/edgeserve/v1/nodes/pi/log"


def a_line(text: str) -> LogLine:
    return LogLine(at=1.0, level="warning", source="node.shelf", text=text)


async def asked(balancer: Endpoint, state_dir: Path, path: str = PATH) -> Answered:
    """Ask with the key that commands on this machine have."""
    port = balancer.balancer.origin.port
    key = admin_key_file(state_dir, port).read_text().strip()
    return await balancer.get(path, {"authorization": f"Bearer {key}"})


async def test_an_admin_sees_the_lines_and_then_only_new_ones(tmp_path: Path) -> None:
    async with fake_node("pi") as node, endpoint(node, state_dir=tmp_path) as balancer:
        node.kept = [a_line("small: failed to load")]
        first = await asked(balancer, tmp_path)
        node.kept += [a_line("small: loads")]
        after = first.json["next"]
        second = await asked(balancer, tmp_path, f"{PATH}?after={after}")

    (line,) = first.json["lines"]
    assert line["text"] == "small: failed to load"
    assert (line["level"], line["source"]) == ("warning", "node.shelf")
    assert [each["text"] for each in second.json["lines"]] == ["small: loads"]


async def test_no_other_key_sees_them_nor_does_a_client_without_one(
    tmp_path: Path,
) -> None:
    async with fake_node("pi") as node, endpoint(node, state_dir=tmp_path) as balancer:
        node.kept = [a_line("small: failed to load")]
        keyless = await balancer.get(PATH)
        secret = new_secret("sk")
        add_key(store_in(tmp_path), ClientKey(id=key_id(secret), name="guest"))
        guest = await balancer.get(PATH, {"authorization": f"Bearer {secret}"})

    for answer in (keyless, guest):
        assert answer.status == 403
        assert b"failed to load" not in answer.body


async def test_a_node_that_does_not_answer_is_a_sentence_with_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: FakeNode, __: web.Request) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(FakeNode, "log", never)
    monkeypatch.setattr(nodes, "LOG_SECONDS", 0.1)
    async with fake_node("pi") as node, endpoint(node, state_dir=tmp_path) as balancer:
        answer = await asked(balancer, tmp_path)

    assert answer.status == 504
    assert "pi does not answer within 0.1 s" in answer.error
    assert "edgeserve service logs" in answer.error


async def test_an_older_node_is_named_as_one(tmp_path: Path) -> None:
    async with fake_node("pi") as node, endpoint(node, state_dir=tmp_path) as balancer:
        node.kept = None
        answer = await asked(balancer, tmp_path)

    assert answer.status == 502
    assert "pi: it runs an older edgeserve" in answer.error


async def test_a_node_that_has_gone_is_a_sentence(tmp_path: Path) -> None:
    patient = ReconnectPolicy(suspect=20.0, forget=PATIENCE, jitter=lambda: 0.0)
    async with AsyncExitStack() as stack:
        async with fake_node("pi") as node:
            balancer = await stack.enter_async_context(
                endpoint(node, state_dir=tmp_path, pace=patient)
            )
        await balancer.until(lambda fleet: fleet.nodes[0].state != "up")
        answer = await asked(balancer, tmp_path)

    assert answer.status == 502
    assert answer.error.startswith("pi is not reached (")
    assert "edgeserve service logs" in answer.error


async def test_a_name_that_no_node_has_is_refused_with_those_there_are(
    tmp_path: Path,
) -> None:
    async with fake_node("pi") as node, endpoint(node, state_dir=tmp_path) as balancer:
        answer = await asked(balancer, tmp_path, "/edgeserve/v1/nodes/nuc/log")

    assert answer.status == 404
    assert "there are: pi" in answer.error
