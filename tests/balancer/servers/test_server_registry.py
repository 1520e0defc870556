"""Servers are added and removed while the balancer runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from balancer.servers.table import FILE
from edgeserve.cli.nodes.table import node_rows
from edgeserve.config.paths import admin_key_file
from edgeserve.config.servers import ServerSetting
from edgeserve.runtime import stored
from tests.balancer.endpoint import (
    CHAT,
    Answered,
    Endpoint,
    chat,
    endpoint,
    eventually,
    everyone_up,
)
from tests.balancer.servers.reading import text
from tests.fakes.node import fake_node
from tests.fakes.servers import OLLAMA, OPENAI, VLLM, fake_server, listed
from tests.patience import PATIENCE

SERVERS = "/edgeserve/v1/servers"
KEY = "a-key-that-is-nowhere-to-be-seen"


async def ask(
    here: Endpoint, method: str, path: str = "", body: Any = None
) -> Answered:
    """Ask as a command on the balancer's machine does."""
    folder = here.balancer.state.routes._path
    assert folder is not None
    key = admin_key_file(folder.parent, here.balancer.origin.port).read_text().strip()
    url = URL(f"{SERVERS}{path}", encoded=True)
    headers = {"authorization": f"Bearer {key}"}
    async with here.session.request(method, url, json=body, headers=headers) as answer:
        return Answered(answer, await answer.read())


async def add(here: Endpoint, url: str, **fields: Any) -> Answered:
    return await ask(here, "POST", body={"url": url, **fields})


async def remove(here: Endpoint, name: str) -> Answered:
    return await ask(here, "DELETE", f"/{quote(name, safe='')}")


async def test_a_server_that_is_added_answers_at_once_and_after_a_restart(
    tmp_path: Path,
) -> None:
    async with fake_server(VLLM) as server:
        async with endpoint(state_dir=tmp_path) as here:
            added = await add(here, f"{server.url}/v1", name="gpu", last_resort=True)
            now = await here.post(CHAT, chat())
        async with endpoint(state_dir=tmp_path) as here:
            later = await here.post(CHAT, chat())
            listed_ = (await here.get(SERVERS)).json
            gone = await remove(here, "gpu")
            none = await here.post(CHAT, chat())
        async with endpoint(state_dir=tmp_path) as here:
            still = (await here.get(SERVERS)).json

    model = {"id": "Qwen/Small", "model": "Small", "context": 2048}
    assert added.json | {"id": "", "assumed": [], "running": 0} == {
        "id": "",
        "name": "gpu",
        "url": f"{server.url}/v1",
        "kind": "vllm",
        "state": "up",
        "problem": None,
        "models": [model | {"abilities": ["chat", "completion", "tools"]}],
        "width": 64,
        "running": 0,
        "assumed": [],
        "key": False,
        "last_resort": True,
        "from": "added",
    }
    assert added.json["running"] == 3
    assert "64 assumed until its answers show it" in added.json["assumed"][0]
    assert (now.status, later.status, gone.status, none.status) == (200, 200, 200, 503)
    assert [each["id"] for each in listed_] == [added.json["id"]]
    assert still == []


async def test_a_key_reaches_only_its_server_and_a_file_that_only_its_owner_reads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with fake_server(VLLM, key=KEY) as server:
        async with endpoint(state_dir=tmp_path) as here:
            added = await add(here, server.url, key=KEY)
            shown = [added, *[await here.get(p) for p in (SERVERS, NODES, "/metrics")]]
            wrong = await add(here, f"{server.url}/x", key="no\nkey")
        async with endpoint(state_dir=tmp_path) as here:
            later = await here.post(CHAT, chat())

    assert (added.json["key"], later.status, wrong.status) == (True, 200, 400)
    assert all(KEY not in each.body.decode() for each in shown)
    assert KEY not in caplog.text
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert KEY in (tmp_path / FILE).read_text()


NODES = "/edgeserve/v1/nodes"

REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no URL": ({"url": "gpu"}, 400, "must be a URL such as http://gpu:8000"),
    "a password": ({"url": "http://me:xyz@gpu"}, 400, "no name and password"),
    "an unknown key": ({"widht": 3}, 400, "did you mean 'width'?"),
    "a file of the balancer": ({"key_file": "/etc/shadow"}, 400, "`key` has its"),
    "certificates without TLS": ({"ca": "x"}, 200, ""),
    "no text as key": ({"key": 3}, 400, "must be texts"),
    "none of its models": ({"models": ["big"]}, 422, "it has Qwen/Small"),
    "a name that is taken": ({"name": "gpu"}, 400, "two servers are called gpu"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_added_is_refused_with_the_reason(name: str) -> None:
    body, status, said = REFUSED[name]
    async with fake_server(VLLM) as server, fake_server(OPENAI) as other:
        known = ServerSetting(url=other.url, name="gpu")
        async with endpoint(server_tables=(known,)) as here:
            answer = await ask(here, "POST", body={"url": server.url} | body)
            names = [each["name"] for each in (await here.get(SERVERS)).json]

    assert answer.status == status
    assert status == 200 or said in answer.error
    assert "xyz" not in answer.body.decode()
    assert (len(names) == 2) == (status == 200)


async def test_a_server_that_does_not_answer_as_one_is_not_added(
    tmp_path: Path,
) -> None:
    async with fake_server({}) as page, endpoint(state_dir=tmp_path) as here:
        empty = await add(here, page.url)
        await page.stop()
        away = await add(here, page.url)
        itself = await add(here, here.balancer.origin.url)
        listed_ = (await here.get(SERVERS)).json

    assert (empty.status, away.status, itself.status) == (422, 422, 422)
    assert "was answered 404: name the URL below which its /v1/models is" in empty.error
    assert "did not answer: Connection refused" in away.error
    assert listed_ == []
    assert not (tmp_path / FILE).exists()


async def test_one_server_is_added_once_in_whatever_spelling() -> None:
    async with fake_server(OPENAI) as server, endpoint() as here:
        await add(here, server.url)
        again = [await add(here, f"{server.url}{end}") for end in ("", "/", "/v1/")]

    assert {each.status for each in again} == {400}
    assert f"serves here as 127.0.0.1:{server.port}" in again[0].error


async def test_a_server_of_the_settings_is_not_removed() -> None:
    async with fake_server(OPENAI) as server, endpoint(servers=(server.url,)) as here:
        name = f"127.0.0.1:{server.port}"
        removed = [await remove(here, each) for each in (name, server.url, "gpu")]
        (shown,) = (await here.get(SERVERS)).json

    assert [each.status for each in removed] == [409, 409, 404]
    assert "remove it there and restart the balancer" in removed[0].error
    assert f"there are: {name}" in removed[2].error
    assert shown["from"] == "settings"


async def test_only_an_admins_key_changes_servers() -> None:
    async with endpoint() as here:
        for method, path in (("POST", SERVERS), ("DELETE", f"{SERVERS}/x")):
            async with here.session.request(method, path, json={}) as answer:
                assert answer.status == 403


async def test_an_answer_that_runs_ends_whole_though_its_server_is_removed() -> None:
    async with fake_node() as node, fake_server(OPENAI) as server:
        server.gate = asyncio.Event()
        server.answers["/v1/models"] = listed("other")
        async with endpoint(node) as here:
            await add(here, server.url)
            asked = asyncio.ensure_future(
                here.post(CHAT, chat(model="other", stream=True))
            )
            await eventually(lambda: bool(server.asked))
            await remove(here, server.url)
            refused = await here.post(CHAT, chat(model="other"))
            server.gate.set()
            answered = await asked
            again = await add(here, server.url)
            later = await here.post(CHAT, chat(model="other"))
            (taken,) = (
                here.balancer.state.slot_counts.busy(each.key)
                for each in here.balancer.state.current.candidates
                if each.engine.kind == "server"
            )

    assert text(answered.body) == "Hello there"
    assert answered.body.rstrip().endswith(b"data: [DONE]")
    assert refused.status == 404
    assert (again.status, later.status, taken) == (200, 200, 0)


async def test_no_look_brings_a_removed_server_back() -> None:
    async with fake_server(OPENAI) as server, endpoint() as here:
        await add(here, server.url)
        server.quiet = asyncio.Event()
        looks = len(server.looked)
        await eventually(lambda: len(server.looked) > looks)
        await remove(here, server.url)
        server.quiet.set()
        shown = (await here.get(NODES)).json

    assert shown == []
    assert f"127.0.0.1:{server.port} left" in here.heard


async def test_a_server_that_was_never_seen_has_its_name_everywhere() -> None:
    known = ServerSetting(url="http://127.0.0.1:9/v1", name="gpu")
    async with endpoint(server_tables=(known,), wait=False) as here:
        await here.until(
            lambda fleet: [e.state for e in fleet.addresses.values()] == ["unreachable"]
        )
        nodes, servers = [(await here.get(each)).json for each in (NODES, SERVERS)]

    assert [each["name"] for each in (*nodes, *servers)] == ["gpu", "gpu"]
    assert nodes[0]["id"] == servers[0]["id"]
    assert node_rows(nodes)[0].cells[0] == "gpu"
    assert "Connection refused" in servers[0]["problem"]
    assert servers[0]["state"] == "unreachable"


@pytest.mark.parametrize("content", ["{", '{"servers": 3}', ""])
async def test_a_damaged_file_costs_its_servers_and_is_told(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_text(content)
    async with endpoint(state_dir=tmp_path) as here:
        assert (await here.get(SERVERS)).json == []

    assert "servers that were added are lost" in caplog.text


async def test_a_wrong_entry_costs_only_its_server_and_the_settings_go_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gpu, pi = "http://127.0.0.1:9", "http://127.0.0.1:10"
    tables: list[Any] = [{"url": gpu, "kind": "vlm", "key": KEY}, {"url": pi}]
    (tmp_path / FILE).write_text(json.dumps({"servers": [*tables, {"url": gpu}]}))
    settings: dict[str, Any] = {"servers": (f"{gpu}/v1",), "state_dir": tmp_path}
    async with endpoint(wait=False, **settings) as here:
        shown = (await here.get(SERVERS)).json

    assert [(e["url"], e["from"]) for e in shown] == [
        (f"{gpu}/v1", "settings"),
        (pi, "added"),
    ]
    assert "a server that was added is lost" in caplog.text
    assert f"left out: {gpu} is named twice" in caplog.text
    assert KEY not in caplog.text


async def test_of_two_that_add_a_server_at_once_one_does() -> None:
    async with fake_server(OPENAI) as server, endpoint() as here:
        server.quiet = asyncio.Event()
        adding = [
            asyncio.ensure_future(add(here, server.url, name=each)) for each in "ab"
        ]
        await eventually(lambda: len(server.looked) == 2)
        server.quiet.set()
        statuses = sorted(each.status for each in await asyncio.gather(*adding))
        shown = (await here.get(SERVERS)).json

    assert (statuses, len(shown)) == ([200, 400], 1)


async def test_who_leaves_before_the_first_look_is_over_adds_nothing() -> None:
    async with fake_server(OPENAI) as server, endpoint() as here:
        server.quiet = asyncio.Event()
        adding = asyncio.ensure_future(add(here, server.url))
        await eventually(lambda: bool(server.looked))
        adding.cancel()
        await asyncio.wait([adding])
        server.quiet.set()
        again = await add(here, server.url)

    assert again.status == 200


async def test_a_server_that_cannot_be_kept_serves_until_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    async with fake_server(OPENAI) as server, endpoint(state_dir=tmp_path) as here:
        monkeypatch.setattr(stored, "replace_json", full)
        added = await add(here, server.url)
        answer = await here.post(CHAT, chat())

    assert (added.status, answer.status) == (507, 200)
    assert "No space left" in added.error


async def test_a_program_that_takes_anothers_port_is_recognised_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("balancer.servers.polling.EVERY_SECONDS", 0.02)
    async with fake_server(VLLM) as server, endpoint(servers=(server.url,)) as here:
        epoch = here.balancer.state.current.candidates[0].engine.epoch
        server.answers.clear()
        server.answers.update(OLLAMA)
        await here.until(lambda fleet: fleet.nodes[0].report.version == "ollama")
        for each in here.balancer.state.current.candidates:
            assert each.engine.epoch > epoch
            assert each.engine.slots == 1
        server.answers["/v1/models"] = listed("small:latest", "more", owner="library")
        await here.until(lambda fleet: len(fleet.nodes[0].report.engines) == 2)

        assert everyone_up(here.balancer.state.current.fleet)
        assert here.balancer.state.current.candidates[0].engine.epoch == epoch + 1


async def test_a_server_that_works_may_be_silent_and_an_idle_one_may_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("balancer.servers.polling.EVERY_SECONDS", 0.02)
    monkeypatch.setattr("balancer.servers.polling.ASK_SECONDS", 0.1)
    states = list[str]()
    async with fake_server(OPENAI) as server, endpoint(servers=(server.url,)) as here:
        current = here.balancer.state.current
        current.listen(
            lambda: states.extend(e.state for e in current.fleet.addresses.values())
        )
        server.gate = asyncio.Event()
        asked = asyncio.ensure_future(here.post(CHAT, chat(stream=True)))
        await eventually(lambda: bool(server.asked))
        looks = len(server.looked)
        server.quiet = asyncio.Event()
        await eventually(lambda: len(server.looked) > looks + 4)
        while_at_work = set(states)
        server.gate.set()
        assert (await asked).status == 200
        async with asyncio.timeout(PATIENCE):
            await here.until(
                lambda f: all(e.state != "up" for e in f.addresses.values())
            )

    assert while_at_work <= {"up"}
