"""Servers of other programs serve in the fleet, through a whole balancer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edgeserve.cli.nodes.table import node_rows
from edgeserve.config.servers import ServerSetting
from edgeserve.errors import NodeLost
from edgeserve.wire import Expected
from tests.balancer.endpoint import (
    CHAT,
    a_secret,
    chat,
    endpoint,
    eventually,
    everyone_up,
)
from tests.balancer.servers.reading import events, text
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine
from tests.fakes.servers import (
    ANSWER,
    DONE,
    OPENAI,
    USAGE_CHUNK,
    VLLM,
    chunk,
    fake_server,
    listed,
)


async def test_a_server_answers_a_chat_as_the_engines_of_nodes_do() -> None:
    async with fake_server(VLLM) as server, endpoint(servers=(server.url,)) as here:
        answered = await here.post(CHAT, chat(model="small", cache_prompt=True))

        path, headers, body = server.asked[0]
        assert answered.status == 200
        assert answered.text == "Hello there"
        assert answered.json["usage"]["completion_tokens"] == 2
        assert answered.headers["x-edgeserve-model"] == "Qwen/Small"
        assert path == CHAT
        assert body["model"] == "Qwen/Small"
        assert body.keys() == {"model", "messages", "stream", "stream_options"}
        assert not [each for each in headers if each.lower().startswith("x-edgeserve")]


async def test_a_stream_ends_as_the_client_expects_it_with_usage_only_if_asked() -> (
    None
):
    async with fake_server(OPENAI) as server, endpoint(servers=(server.url,)) as here:
        plain = await here.post(CHAT, chat(stream=True))
        counted = await here.post(
            CHAT, chat(stream=True, stream_options={"include_usage": True})
        )

    assert text(plain.body) == text(counted.body) == "Hello there"
    assert b'"usage"' not in plain.body
    assert events(counted.body)[-2]["usage"]["prompt_tokens"] == 9
    assert events(plain.body)[-1] == events(counted.body)[-1] == "[DONE]"


async def test_speed_is_learned_without_timings_and_why_shows_it() -> None:
    script = [[ANSWER[0], *[chunk({"content": "a"})] * 8, *ANSWER[2:]]] * 2
    usage = USAGE_CHUNK.replace(b'"completion_tokens": 2', b'"completion_tokens": 9')
    for each in script:
        each[-2] = usage
    async with (
        fake_server(OPENAI, script=script) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        answered = await here.post(CHAT, chat(stream=True))
        models = here.balancer.state.predictive.fleet_model.all()

        assert models[0].learner.calibrated
        id_ = answered.headers["x-edgeserve-request-id"]
        why = (await here.get(f"/edgeserve/v1/requests/{id_}")).body
        assert b'"answer_tokens":9' in why.replace(b" ", b"")


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(ANSWER[:-1], id="without [DONE]"),
        pytest.param(
            [each.replace(b"data: ", b"data:") for each in ANSWER], id="without spaces"
        ),
        pytest.param([each.replace(b"\n", b"\r\n") for each in ANSWER], id="with CRLF"),
        pytest.param([b": keepalive 1/2\n\n", *ANSWER], id="with comments"),
        pytest.param([bytes([each]) for each in b"".join(ANSWER)], id="byte by byte"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_is_whole_however_its_server_writes_it(
    pieces: list[bytes | None], stream: bool
) -> None:
    async with (
        fake_server(OPENAI, script=[pieces]) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        answered = await here.post(CHAT, chat(stream=stream))

    said = text(answered.body) if stream else answered.text
    assert answered.status == 200
    assert said == "Hello there"
    assert not stream or events(answered.body)[-1] == "[DONE]"


async def test_reasoning_has_the_same_field_from_every_server() -> None:
    script = [[chunk({"role": "assistant", "reasoning": "hm"}), *ANSWER[1:]]] * 2
    async with (
        fake_server(OPENAI, script=script) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        streamed = await here.post(CHAT, chat(stream=True))
        whole = await here.post(CHAT, chat())
        short = await here.post(CHAT, chat(max_tokens=2))

    assert events(streamed.body)[0]["choices"][0]["delta"]["reasoning_content"] == "hm"
    for each in (whole, short):
        assert each.json["choices"][0]["message"]["reasoning_content"] == "hm"


ERROR_THEN_DONE = [
    b'data: {"error": {"message": "EngineCore died", "code": 500}}\n\n',
    DONE,
]
FLAT_ERROR = [b'data: {"object":"error","message":"no memory","code":500}\n\n']
TEXT_ERROR = [b'data: {"error":"overloaded","error_type":"x"}\n\n']


@pytest.mark.parametrize("broken", [ERROR_THEN_DONE, FLAT_ERROR, TEXT_ERROR, [None]])
async def test_what_fails_before_the_first_byte_is_answered_by_a_node(
    broken: list[bytes | None],
) -> None:
    async with (
        fake_server(OPENAI, script=[[ANSWER[0], *broken]] * 9) as server,
        fake_node("pi") as node,
        endpoint(node, servers=(server.url,)) as here,
    ):
        answers = [await here.post(CHAT, chat(stream=True)) for _ in range(4)]

    assert server.asked
    assert {each.status for each in answers} == {200}
    assert all(events(each.body)[-1] == "[DONE]" for each in answers)
    assert all(each.headers["x-edgeserve-node"] == "pi" for each in answers)


@pytest.mark.parametrize("broken", [ERROR_THEN_DONE, FLAT_ERROR, TEXT_ERROR, [None]])
async def test_an_answer_that_breaks_off_is_not_continued_elsewhere_but_refused(
    broken: list[bytes | None],
) -> None:
    async with (
        fake_server(OPENAI, script=[[*ANSWER[:2], *broken]]) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        answered = await here.post(CHAT, chat(stream=True))

    last = events(answered.body)[-1]
    assert text(answered.body) == "Hello"
    assert "cannot be continued" in last["error"]["message"]


async def test_an_answer_without_a_reason_for_its_end_is_no_answer() -> None:
    async with (
        fake_server(OPENAI, script=[[DONE], [ANSWER[0], DONE]]) as server,
        endpoint(servers=(server.url,), attempts=1) as here,
    ):
        answered = await here.post(CHAT, chat(stream=True))

    assert b"ended before the answer did" in answered.body


async def test_a_server_that_goes_and_comes_back_is_used_again() -> None:
    async with fake_server(OPENAI) as server, endpoint(servers=(server.url,)) as here:
        await server.stop()
        refused = await here.post(CHAT, chat())
        await here.until(
            lambda fleet: all(e.state != "up" for e in fleet.addresses.values())
        )
        await server.start()
        await here.until(everyone_up)
        answered = await here.post(CHAT, chat())

    assert refused.status in {502, 503}
    assert answered.text == "Hello there"


async def test_a_key_comes_from_a_file_and_its_refusal_says_what_to_do(
    tmp_path: Any,
) -> None:
    file = a_secret(tmp_path, "key", "s3cret")
    async with fake_server(OPENAI, key="s3cret") as server:
        known = ServerSetting(url=server.url, key_file=str(file))
        async with endpoint(server_tables=(known,)) as here:
            assert (await here.post(CHAT, chat())).text == "Hello there"
            assert server.asked[0][1]["authorization"] == "Bearer s3cret"
            server.key = "another"
            refused = await here.post(CHAT, chat())
            assert "refuses the key" in refused.error
        async with endpoint(servers=(server.url,), wait=False) as here:
            await here.until(
                lambda fleet: any(e.problem for e in fleet.addresses.values())
            )
            said = " ".join(here.heard)
            assert "answered 401" in said
            assert "`key_file` in a [[server]] table" in said


async def test_a_strangers_error_reaches_the_client_in_one_format() -> None:
    flat = {"object": "error", "message": "bad temperature", "type": "X", "code": 400}
    async with (
        fake_server(OPENAI, posts={CHAT: (400, flat)}) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        answered = await here.post(CHAT, chat())

    assert answered.status == 400
    assert answered.error == "bad temperature"


async def test_a_success_that_is_an_error_is_none() -> None:
    posts = {CHAT: {"error": "Unexpected endpoint or method. (POST /v1/chat)"}}
    async with (
        fake_server(OPENAI, posts=posts) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        answered = await here.post(CHAT, chat())

    assert answered.status == 502
    assert "Unexpected endpoint" in answered.error


async def test_routes_and_fields_of_llama_cpp_are_not_for_servers() -> None:
    async with fake_server(OPENAI) as server, endpoint(servers=(server.url,)) as here:
        native = await here.post("/completion", {"model": "small", "prompt": "a"})
        grammar = await here.post(CHAT, chat(grammar='root ::= "a"'))

    assert native.status == grammar.status == 400
    assert "only llama.cpp can answer this" in native.error
    assert not server.asked


async def test_a_prefix_and_v1_in_the_url_are_kept() -> None:
    answers = {"/proxy/ai/v1/models": listed("small")}
    async with fake_server(answers) as server:
        async with endpoint(servers=(server.url + "/proxy/ai/v1/",)) as here:
            assert (await here.post(CHAT, chat())).text == "Hello there"
        assert server.asked[0][0] == "/proxy/ai/v1/chat/completions"


async def test_a_client_that_leaves_ends_its_request_at_the_server() -> None:
    gate = asyncio.Event()
    async with (
        fake_server(OPENAI, gate=gate) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        async with here.session.post(CHAT, json=chat(stream=True)) as response:
            await response.content.readany()
        await eventually(lambda: not here.balancer.state.in_flight.inside)
        gate.set()
        assert (await here.post(CHAT, chat())).status == 200


async def test_a_last_resort_answers_only_what_nothing_else_can() -> None:
    slow = an_engine("small:Q4_1", expected=Expected(read=1.0, write=1.0))
    async with fake_server(OPENAI) as server, fake_node("pi", engine=slow) as node:
        known = ServerSetting(url=server.url, last_resort=True, name="cloud")
        async with endpoint(node, server_tables=(known,)) as here:
            first = await here.post(CHAT, chat())
            node.refuse = NodeLost("it is ill")
            second = await here.post(CHAT, chat())

    assert first.headers["x-edgeserve-node"] == "pi"
    assert second.headers["x-edgeserve-node"] == "cloud"


async def test_a_nodes_broken_answer_does_not_go_on_at_a_server() -> None:
    half = b"".join(
        b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]'
        b',"id":"a","created":1,"model":"m","system_fingerprint":"f"}\n\n' % each
        for each in (b"One", b" two")
    )
    async with fake_server(OPENAI) as server, fake_node("pi") as node:
        known = ServerSetting(url=server.url, last_resort=True)
        async with endpoint(node, server_tables=(known,)) as here:
            node.script.append((half, "broken"))
            answered = await here.post(CHAT, chat(stream=True))

    assert text(answered.body) == "One two"
    assert "error" in events(answered.body)[-1]
    assert not server.asked


async def test_servers_need_no_fleet_token(tmp_path: Any) -> None:
    token = a_secret(tmp_path, "token", "a-token-that-is-long-enough-to-be-one")
    key = a_secret(tmp_path, "keys", "a-key-that-is-long-enough")
    async with (
        fake_server(OPENAI) as server,
        endpoint(servers=(server.url,), token_file=token, api_key_file=key) as here,
    ):
        headers = {"authorization": "Bearer a-key-that-is-long-enough"}
        answered = await here.post(CHAT, chat(), headers)

        assert answered.text == "Hello there"
        assert "authorization" not in server.asked[0][1]


async def test_tables_and_metrics_show_a_server_as_a_node() -> None:
    async with fake_server(VLLM) as server, endpoint(servers=(server.url,)) as here:
        await here.post(CHAT, chat())
        found = (await here.get("/edgeserve/v1/nodes")).json
        metrics = (await here.get("/metrics")).body.decode()
        (row,) = node_rows(found["nodes"] if isinstance(found, dict) else found)

    assert row.cells[0] == f"127.0.0.1:{server.port}"
    assert row.cells[1] == "up"
    assert "Qwen/Small: 3 of 64 slots busy" in row.below[0]
    assert "64 assumed" in " ".join(row.below)
    assert f'node="127.0.0.1:{server.port}"' in metrics


async def test_requests_wait_for_a_slot_of_a_server_as_wide_as_it_is_said() -> None:
    gate = asyncio.Event()
    async with fake_server(OPENAI, gate=gate) as server:
        known = ServerSetting(url=server.url, width=2)
        async with endpoint(server_tables=(known,)) as here:
            asked = [
                asyncio.ensure_future(here.post(CHAT, chat(stream=True)))
                for _ in range(3)
            ]
            await eventually(
                lambda: (
                    len(server.asked) == 2 and here.balancer.state.queue.waiting == 1
                )
            )
            gate.set()
            answers = await asyncio.gather(*asked)

    assert {text(each.body) for each in answers} == {"Hello there"}


async def test_a_server_gets_no_orders_of_ours(tmp_path: Any) -> None:
    keys = a_secret(tmp_path, "keys", "a-key-that-is-long-enough")
    headers = {"authorization": "Bearer a-key-that-is-long-enough"}
    async with (
        fake_server(OPENAI) as server,
        endpoint(servers=(server.url,), api_key_file=keys) as here,
    ):
        path = "/edgeserve/v1/models/small/unload"
        refused = await here.post(path, {}, headers)

        assert refused.status >= 400
        assert "not a node: it takes no orders" in refused.error
        assert not server.asked
