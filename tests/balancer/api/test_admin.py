"""Everything but inference."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from tests.balancer.endpoint import CHAT, a_secret, chat, endpoint, eventually
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine
from tests.fakes.tokens import GivenTokens

KEY = "key-of-a-client-1234"
TOKEN = "token-of-the-fleet-1"
GUARDED = (
    "/metrics",
    "/v1/models",
    "/v1/models/small",
    "/edgeserve/v1/nodes",
    "/edgeserve/v1/requests",
    "/edgeserve/v1/requests/x",
)


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def test_health_tells_how_many_nodes_and_engines_serve() -> None:
    loading = an_engine(state="loading")
    async with (
        fake_node("pi") as pi,
        fake_node("nuc", engine=loading) as nuc,
        endpoint(pi, nuc) as balancer,
    ):
        answer = await balancer.get("/health")

    assert answer.status == 200
    assert answer.json == {"status": "ok", "nodes": 2, "engines": 1}


async def test_nodes_are_shown_with_their_reports_and_silent_ones_without() -> None:
    async with (
        fake_node("pi") as node,
        endpoint(node, "http://127.0.0.1:1", wait=False) as balancer,
    ):
        await balancer.until(
            lambda fleet: (
                {address.state for address in fleet.addresses.values()}
                == {"up", "unreachable"}
            )
        )
        up, silent = (await balancer.get("/edgeserve/v1/nodes")).json

    assert (up["state"], up["url"]) == ("up", node.url)
    assert up["report"]["name"] == "pi"
    assert (silent["state"], silent["report"]) == ("unreachable", None)
    assert silent["url"] == "http://127.0.0.1:1"
    assert silent["problem"]


async def test_requests_are_listed_newest_first_and_explained() -> None:
    async with fake_node("pi") as node, endpoint(node) as balancer:
        await balancer.post(CHAT, chat())
        await balancer.post(CHAT, chat(model="huge"))
        newest, oldest = (await balancer.get("/edgeserve/v1/requests")).json
        found = await balancer.get(f"/edgeserve/v1/requests/{oldest['id']}")
        missing = await balancer.get("/edgeserve/v1/requests/none")

    assert (newest["status"], newest["outcome"]) == (404, "model_not_found")
    assert (oldest["status"], oldest["state"]) == (200, "done")
    (candidate,) = found.json["attempts"][0]["candidates"]
    predicted = candidate.pop("predicted")
    assert candidate == {
        "node": "pi",
        "engine": "small:Q4_1",
        "variant": "small:Q4_1",
        "busy": None,
        "slots": 2,
        "chosen": True,
        "reason": "costs least",
    }
    assert predicted["first_token_seconds"] >= predicted["read_seconds"] > 0
    assert missing.status == 404


async def test_a_request_that_waits_can_be_explained_while_it_does() -> None:
    loading = an_engine(state="loading")
    async with fake_node("pi", engine=loading) as node, endpoint(node) as balancer:
        asked = asyncio.ensure_future(balancer.post(CHAT, chat()))
        await eventually(lambda: balancer.balancer.state.queue.waiting == 1)
        (waiting,) = (await balancer.get("/edgeserve/v1/requests")).json
        shown = (await balancer.get(f"/edgeserve/v1/requests/{waiting['id']}")).json
        node.say(state="ready")
        await asked

    assert waiting["state"] == "waiting"
    assert shown["candidates"][0]["reason"] == "loading"


LABEL = r'[a-z_]+="(?:[^"\\]|\\.)*"'
SAMPLE = re.compile(rf"[a-z0-9_:]+(\{{{LABEL}(,{LABEL})*\}})? [0-9.]+")


async def test_metrics_are_what_prometheus_reads() -> None:
    async with fake_node('p"i\\') as node, endpoint(node) as balancer:
        await balancer.post(CHAT, chat())
        await balancer.post(CHAT, chat(model="huge"))
        answer = await balancer.get("/metrics")

    lines = answer.body.decode().splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    values = dict(line.rsplit(" ", 1) for line in samples)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert [line for line in samples if not SAMPLE.fullmatch(line)] == []
    assert values[f'edgeserve_requests_total{{path="{CHAT}",status="200"}}'] == "1"
    assert values[f'edgeserve_requests_total{{path="{CHAT}",status="404"}}'] == "1"
    assert values['edgeserve_nodes{state="up"}'] == "1"
    assert values['edgeserve_request_seconds_bucket{le="+Inf"}'] == "2"
    assert values["edgeserve_request_seconds_count"] == "2"


async def test_an_unknown_path_is_an_error_of_the_same_shape() -> None:
    async with endpoint() as balancer:
        answer = await balancer.get("/v2/nothing")

    assert answer.status == 404
    assert answer.json["error"]["code"] == "not_found"


@pytest.fixture
def guarded(tmp_path: Path) -> dict[str, Any]:
    return {
        "api_key_file": a_secret(tmp_path, "keys", KEY),
        "token_file": a_secret(tmp_path, "token", TOKEN),
        "host": "127.0.0.1",
    }


@pytest.mark.parametrize("path", GUARDED)
async def test_with_keys_everything_but_health_asks_for_one(
    path: str, guarded: dict[str, Any]
) -> None:
    async with endpoint(**guarded) as balancer:
        without = await balancer.get(path)
        wrong = await balancer.get(path, bearer("wrong"))
        fleet = await balancer.get(path, bearer(TOKEN))
        right = await balancer.get(path, bearer(KEY))
        assert (await balancer.get("/health")).status == 200

    assert [without.status, wrong.status, fleet.status] == [401, 401, 401]
    assert right.status != 401


async def test_inference_asks_for_a_key_that_no_node_gets(
    guarded: dict[str, Any],
) -> None:
    async with (
        fake_node(tokens=GivenTokens(TOKEN)) as node,
        endpoint(node, **guarded) as balancer,
    ):
        without = await balancer.post(CHAT, chat())
        right = await balancer.post(CHAT, chat(), bearer(KEY))
        anthropic = await balancer.post(CHAT, chat(), {"x-api-key": KEY})

    assert without.status == 401
    assert without.headers["x-edgeserve-request-id"]
    assert (right.status, anthropic.status) == (200, 200)
    assert len(node.told) == 2
    assert all("authorization" not in r.headers for r in node.told)
    assert all("x-api-key" not in r.headers for r in node.told)


async def test_anonymous_clients_need_no_key(guarded: dict[str, Any]) -> None:
    async with endpoint(**guarded, anonymous=True) as balancer:
        assert (await balancer.get("/v1/models")).status == 200
