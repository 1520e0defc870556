"""Keys over real HTTP: what each may ask, is told, and sees of others."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from balancer.clients.keys import ClientKey, key_id
from balancer.clients.store import add_key, change_key, revoke_key, store_in
from balancer.state import BalancerState
from edgeserve.config.paths import admin_key_file
from tests.balancer.api.test_inference import said
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint, eventually
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine

REQUESTS = "/edgeserve/v1/requests"
USAGE = "/edgeserve/v1/usage"
ADMINS = ("/edgeserve/v1/nodes", "/edgeserve/v1/models", "/metrics")


def of(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}-secret-of-many-letters"}


class Keys:
    """The keys of one state folder, each with a secret made of its name."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.path = store_in(state)

    def add(self, name: str, **fields: Any) -> None:
        secret = of(name)["authorization"].removeprefix("Bearer ")
        add_key(self.path, ClientKey(id=key_id(secret), name=name, **fields))


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    keys = Keys(tmp_path)
    keys.add("ann")
    keys.add("bob")
    keys.add("boss", admin=True)
    return keys


@asynccontextmanager
async def serving(keys: Keys, **settings: Any) -> AsyncGenerator[Endpoint]:
    async with (
        fake_node("pi", Behaviour(slots=1)) as node,
        endpoint(node, state_dir=keys.state, **settings) as balancer,
    ):
        yield balancer


async def test_a_key_sees_its_own_requests_and_an_admin_all(keys: Keys) -> None:
    async with serving(keys) as balancer:
        ids = dict[str, str]()
        for name in ("ann", "bob"):
            answer = await balancer.post(CHAT, chat(), of(name))
            ids[name] = answer.headers["x-edgeserve-request-id"]
        await balancer.post(CHAT, chat())  # without a key

        seen = {
            name: (await balancer.get(REQUESTS, of(name))).json
            for name in ("ann", "bob", "boss")
        }
        others = await balancer.get(f"{REQUESTS}/{ids['bob']}", of("ann"))
        nothing = await balancer.get(f"{REQUESTS}/nothing", of("ann"))
        own = await balancer.get(f"{REQUESTS}/{ids['ann']}", of("ann"))
        bosses = await balancer.get(f"{REQUESTS}/{ids['ann']}", of("boss"))

    assert [each["client"] for each in seen["ann"]] == ["ann"]
    assert [each["client"] for each in seen["bob"]] == ["bob"]
    assert [each["client"] for each in seen["boss"]] == ["", "bob", "ann"]
    assert (own.status, bosses.status) == (200, 200)
    assert (others.status, nothing.status) == (404, 404)
    assert others.error.replace(ids["bob"], "nothing") == nothing.error
    assert "127.0.0.1" not in json.dumps([seen["ann"], own.json["client"]])
    assert "secret" not in json.dumps(seen)


async def test_no_key_replaces_the_record_of_another_by_naming_its_id(
    keys: Keys,
) -> None:
    named = {"x-edgeserve-request-id": "mine"}
    async with serving(keys) as balancer:
        await balancer.post(CHAT, chat(), of("ann") | named)
        bobs = await balancer.post(CHAT, chat(), of("bob") | named)
        await balancer.post(CHAT, chat(), named)
        anns = await balancer.get(f"{REQUESTS}/mine", of("ann"))
        again = await balancer.post(CHAT, chat(), of("ann") | named)

    assert anns.json["client"] == "ann"
    assert bobs.headers["x-edgeserve-request-id"] != "mine"
    assert again.headers["x-edgeserve-request-id"] == "mine"


@pytest.mark.parametrize("path", ADMINS)
async def test_names_and_addresses_of_machines_are_for_admins(
    path: str, keys: Keys
) -> None:
    async with serving(keys) as balancer:
        answers = [await balancer.get(path, of(name)) for name in ("ann", "boss")]
        none = await balancer.get(path)

    assert [each.status for each in (*answers, none)] == [403, 200, 401]
    assert answers[0].json["error"]["code"] == "admin_only"


async def test_without_keys_all_is_as_it_was(tmp_path: Path) -> None:
    async with serving(Keys(tmp_path)) as balancer:
        await balancer.post(CHAT, chat())
        statuses = [(await balancer.get(path)).status for path in (*ADMINS, USAGE)]
        (shown,) = (await balancer.get(REQUESTS)).json

    assert statuses == [200] * 4
    assert shown["client"] == "anonymous"


async def test_a_key_for_other_models_neither_uses_nor_sees_them(
    tmp_path: Path,
) -> None:
    keys = Keys(tmp_path)
    keys.add("ann", models=("big",))
    async with (
        fake_node("pi") as pi,
        fake_node("nuc", engine=an_engine("big:Q8_0")) as nuc,
        endpoint(pi, nuc, state_dir=tmp_path) as balancer,
    ):
        refused = await balancer.post(CHAT, chat(), of("ann"))
        unnamed = await balancer.post("/tokenize", {"content": "a"}, of("ann"))
        listed = await balancer.get("/v1/models", of("ann"))
        hidden = await balancer.get("/v1/models/small", of("ann"))
        anthropic = await balancer.post("/v1/messages", chat(), of("ann"))

    assert (refused.status, unnamed.status, hidden.status) == (403, 403, 404)
    error = refused.json["error"]
    assert (error["code"], error["type"]) == ("model_not_allowed", "permission_error")
    assert [each["id"] for each in listed.json["data"]] == ["big"]
    assert anthropic.json["error"]["type"] == "permission_error"


async def test_past_a_limit_the_answer_has_openais_shape_and_headers(
    keys: Keys,
) -> None:
    keys.add("guest", requests_per_minute=2, tokens_per_minute=100_000)
    async with serving(keys) as balancer:
        first = await balancer.post(CHAT, chat(), of("guest"))
        stream = await balancer.post(CHAT, chat(stream=True), of("guest"))
        refused = await balancer.post(CHAT, chat(), of("guest"))
        other = await balancer.post(CHAT, chat(), of("ann"))

    assert (first.status, stream.status, refused.status) == (200, 200, 429)
    assert said(stream.body)
    for answer, left in ((first, "1"), (stream, "0"), (refused, "0")):
        assert answer.headers["x-ratelimit-limit-requests"] == "2"
        assert answer.headers["x-ratelimit-remaining-requests"] == left
        assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
        assert answer.headers["x-ratelimit-limit-tokens"] == "100000"
    assert int(refused.headers["x-ratelimit-remaining-tokens"]) < 100_000
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert refused.json["error"] == {
        "message": refused.error,
        "type": "requests",
        "code": "rate_limit_exceeded",
        "param": None,
    }
    assert not [name for name in other.headers if name.startswith("x-ratelimit")]


@pytest.mark.parametrize("stream", [True, False])
async def test_tokens_are_charged_when_the_answer_has_ended(
    stream: bool, keys: Keys
) -> None:
    keys.add("guest", tokens_per_minute=10)
    async with serving(keys) as balancer:
        answer = await balancer.post(
            CHAT, chat("some words", stream=stream, max_tokens=40), of("guest")
        )
        refused = await balancer.post(CHAT, chat(), of("guest"))

    assert (answer.status, refused.status) == (200, 429)
    assert refused.json["error"]["type"] == "tokens"
    assert int(refused.headers["retry-after"]) > 60


async def test_an_answer_that_is_left_is_charged_by_what_came(keys: Keys) -> None:
    keys.add("guest", tokens_per_minute=1)
    slow = Behaviour(slots=1, decode=50)
    async with (
        fake_node("pi", slow) as node,
        endpoint(node, state_dir=keys.state) as balancer,
    ):
        body = chat(stream=True, max_tokens=1000)
        async with balancer.session.post(
            CHAT, json=body, headers=of("guest")
        ) as answer:
            for _ in range(12):
                await answer.content.readline()
        await eventually(lambda: not balancer.balancer.state.in_flight.inside)
        refused = await balancer.post(CHAT, chat(), of("guest"))

    assert refused.status == 429


async def test_requests_at_once_are_counted_while_they_run(keys: Keys) -> None:
    keys.add("guest", at_once=1)
    async with (
        fake_node("pi", Behaviour(slots=2)) as node,
        endpoint(node, state_dir=keys.state) as balancer,
    ):
        node.llama.freeze()
        running = asyncio.ensure_future(balancer.post(CHAT, chat(), of("guest")))
        await eventually(lambda: balancer.balancer.state.in_flight.inside == 1)
        refused = await balancer.post(CHAT, chat(), of("guest"))
        node.llama.thaw()
        first = await running
        after = await balancer.post(CHAT, chat(), of("guest"))

    assert (first.status, refused.status, after.status) == (200, 429, 200)


def is_waiting(state: BalancerState, count: int) -> bool:
    return state.queue.waiting == count


@pytest.mark.parametrize("policy", ["predict", "least-busy"])
async def test_of_waiting_requests_the_higher_priority_is_served_first(
    keys: Keys, policy: str
) -> None:
    keys.add("vip", priority=5)
    async with (
        fake_node("pi", Behaviour(slots=1)) as node,
        endpoint(node, state_dir=keys.state, policy=policy) as balancer,
    ):
        state = balancer.balancer.state
        node.llama.freeze()
        asked = [asyncio.ensure_future(balancer.post(CHAT, chat(), of("ann")))]
        await eventually(lambda: state.in_flight.inside == 1)
        for count, name in enumerate(("ann", "bob", "vip"), 1):
            asked.append(
                asyncio.ensure_future(balancer.post(CHAT, chat(name), of(name)))
            )
            await eventually(partial(is_waiting, state, count))
        node.llama.thaw()
        await asyncio.gather(*asked)

    said_in_turn = [
        each.body["messages"][0]["content"]
        for each in node.llama.requests
        if "messages" in each.body
    ]
    assert said_in_turn[:2] == ["hi", "vip"]


async def test_a_change_counts_on_a_connection_that_is_open(keys: Keys) -> None:
    async with serving(keys) as balancer:
        before = await balancer.get("/v1/models", of("ann"))
        change_key(keys.path, "ann", {"models": ("nothing",)})
        narrowed = await balancer.get("/v1/models", of("ann"))
        revoke_key(keys.path, "ann", time.time())
        after = await balancer.get("/v1/models", of("ann"))

    assert (before.status, narrowed.status, after.status) == (200, 200, 401)
    assert before.json["data"]
    assert not narrowed.json["data"]


async def test_usage_is_kept_over_restarts_by_key_model_and_day(keys: Keys) -> None:
    async with serving(keys) as balancer:
        await balancer.post(CHAT, chat("a b c"), of("ann"))
    async with serving(keys) as balancer:
        answer = await balancer.post(CHAT, chat("a b c"), of("ann"))
        await balancer.post(CHAT, chat(stream=True), of("bob"))
        await balancer.post(CHAT, chat(model="huge"), of("bob"))
        every = (await balancer.get(USAGE, of("boss"))).json
        own = (await balancer.get(USAGE + "?key=bob", of("ann"))).json
        picked = (await balancer.get(USAGE + "?days=1&key=bob", of("boss"))).json

    counted = [(each["key"], each["requests"]) for each in every]
    assert counted == [("ann", 2), ("bob", 1)]
    assert own == every[:1]
    assert picked == every[1:]
    used = answer.json["usage"]
    assert every[0] == every[0] | {
        "model": "small",
        "prompt_tokens": 2 * used["prompt_tokens"],
        "answer_tokens": 2 * used["completion_tokens"],
    }


async def test_a_key_that_is_not_there_has_no_usage_but_a_name_that_is_wrong(
    keys: Keys,
) -> None:
    async with serving(keys) as balancer:
        wrong = await balancer.get(USAGE + "?key=nobody", of("boss"))
        unused = await balancer.get(USAGE + "?key=bob", of("boss"))

    assert (wrong.status, unused.status, unused.json) == (404, 200, [])
    assert wrong.error == "there is no key 'nobody'; there are: ann, bob, boss"


@pytest.mark.parametrize("days", ["0", "x", "99999999999999", "-1", "\u0663", ""])
async def test_a_number_of_days_that_is_none_is_refused(days: str, keys: Keys) -> None:
    async with serving(keys) as balancer:
        answer = await balancer.get(f"{USAGE}?days={days}", of("boss"))

    assert answer.status == 400


async def test_metrics_count_by_key_and_model(keys: Keys) -> None:
    async with serving(keys) as balancer:
        answer = await balancer.post(CHAT, chat(), of("ann"))
        text = (await balancer.get("/metrics", of("boss"))).body.decode()

    tokens = answer.json["usage"]["completion_tokens"]
    assert 'edgeserve_key_requests_total{key="ann",model="small"} 1' in text
    labels = 'key="ann",model="small",part="answer"'
    assert f"edgeserve_key_tokens_total{{{labels}}} {tokens}" in text


async def test_embeddings_are_counted_too(keys: Keys) -> None:
    embedder = an_engine("bge:F16", abilities=("embeddings",))
    async with (
        fake_node("pi", Behaviour(embeddings=True), engine=embedder) as node,
        endpoint(node, state_dir=keys.state) as balancer,
    ):
        body = {"model": "bge", "input": "a b c"}
        answer = await balancer.post("/v1/embeddings", body, of("ann"))
        (used,) = (await balancer.get(USAGE, of("ann"))).json

    assert used["model"] == "bge"
    assert used["prompt_tokens"] == answer.json["usage"]["prompt_tokens"] > 0


async def test_the_commands_key_is_an_admins_and_ends_with_the_balancer(
    keys: Keys,
) -> None:
    async with serving(keys) as balancer:
        file = admin_key_file(keys.state, balancer.balancer.origin.port)
        key = {"authorization": f"Bearer {file.read_text().strip()}"}
        assert (await balancer.get("/edgeserve/v1/nodes", key)).status == 200

    assert not file.exists()


async def test_a_damaged_file_of_keys_closes_the_endpoint_but_not_to_its_machine(
    keys: Keys,
) -> None:
    keys.path.write_bytes(b"no database at all" * 99)
    async with serving(keys) as balancer:
        refused = [await balancer.post(CHAT, chat(), of("ann"))]
        refused += [await balancer.get("/v1/models"), await balancer.get(REQUESTS)]
        file = admin_key_file(keys.state, balancer.balancer.origin.port)
        key = {"authorization": f"Bearer {file.read_text().strip()}"}
        served = await balancer.post(CHAT, chat(), key)
        health = await balancer.get("/health")

    assert [each.status for each in refused] == [503, 503, 503]
    assert {each.json["error"]["code"] for each in refused} == {"keys_unusable"}
    assert refused[0].headers["retry-after"]
    assert (served.status, health.status) == (200, 200)
