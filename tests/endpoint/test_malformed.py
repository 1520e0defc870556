"""What a request did wrong is held against no engine: a real one, and every route."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from balancer.fleet.engines import EngineKey
from balancer.health.faults import Fault
from tests.balancer import endpoint as here
from tests.balancer.endpoint import CHAT, chat
from tests.endpoint.conftest import MODEL, Endpoint
from tests.endpoint.malformed import cases

pytestmark = pytest.mark.engine

AT_ONCE = 2
ONE_TOKEN = {"max_tokens": 1, "n_predict": 1, "model": MODEL}


async def test_malformed_requests_harm_no_engine(endpoint: Endpoint) -> None:
    wrong = list(cases())
    assert len(wrong) > 100

    async with here.endpoint(endpoint.node_url) as balancer:
        blamed, states = list[Any](), set[str]()
        breaker = balancer.balancer.state.breakers
        hold = breaker.failed

        def failed(key: EngineKey, fault: Fault) -> None:
            if fault != "none":
                blamed.append((key, fault))
            hold(key, fault)

        breaker.failed = failed  # type: ignore[method-assign]  # to listen
        turn = asyncio.Semaphore(AT_ONCE)

        async def ask(path: str, body: dict[str, Any]) -> int:
            async with turn:
                answer = await balancer.post(path, ONE_TOKEN | body)
                states.update(each.state for each in breaker._health.values())
                return answer.status

        statuses = await asyncio.gather(*(ask(path, body) for path, body in wrong))
        nodes = (await balancer.get("/edgeserve/v1/nodes")).json
        after = await balancer.post(CHAT, chat(model=MODEL, max_tokens=1))

    assert sum(status >= 400 for status in statuses) > 60
    assert (blamed, states - {"ready"}) == ([], set())
    assert [each["health"] for each in nodes] == [{}]
    assert after.status == 200
