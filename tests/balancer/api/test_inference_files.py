"""When our own descriptors run out, no node is at fault."""

from __future__ import annotations

import pytest

from edgeserve.errors import NoFiles
from edgeserve.http.client.pool import Pool
from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node


async def test_a_client_gets_a_time_to_come_back_and_the_node_stays_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def none_left(*_: object) -> None:
        raise NoFiles("too many files are open here; come back soon")

    async with (
        fake_node("pi", Behaviour()) as node,
        fake_node("nuc", Behaviour()) as other,
        endpoint(node, other) as balancer,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Pool, "connect", none_left)
            refused = await balancer.post(CHAT, chat())
        nodes = (await balancer.get("/edgeserve/v1/nodes")).json
        answered = await balancer.post(CHAT, chat())

    assert (refused.status, refused.json["error"]["code"]) == (503, "no_room")
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["x-edgeserve-attempts"] == "1"
    assert [(each["state"], each["health"]) for each in nodes] == [("up", {})] * 2
    assert answered.status == 200
