"""Servers that listen on a node's machine only serve in the fleet through the node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from yarl import URL

from balancer.fleet.members import Fleet, LastReport, NodeAddress
from balancer.servers.adopted import adopted
from balancer.servers.client import ServerClient
from balancer.servers.server import Server
from edgeserve import http
from edgeserve.config.paths import admin_key_file
from edgeserve.config.servers import ServerSetting
from edgeserve.http.types import Origin
from edgeserve.orders.servers import AdoptedServer
from edgeserve.runtime import background
from edgeserve.runtime.background import Kind
from node.adoption import finding
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint, eventually
from tests.fakes.node import fake_node
from tests.fakes.reports import a_report
from tests.fakes.servers import ANSWER, OLLAMA, VLLM, fake_server, listed
from tests.node.adopter import adopter, quick

pytestmark = pytest.mark.usefixtures(quick.__name__)
__all__ = ["quick"]


def names(here: Endpoint) -> set[str]:
    return {each.name for each in here.balancer.state.current.fleet.nodes}


def admin_of(here: Endpoint, state_dir: Path) -> dict[str, str]:
    """Build the header of an admin of a balancer."""
    key = admin_key_file(state_dir, here.balancer.origin.port).read_text().strip()
    return {"authorization": f"Bearer {key}"}


def serving(fleet: Fleet, name: str) -> bool:
    return any(each.name == name and each.state == "up" for each in fleet.nodes)


async def test_a_server_that_only_its_machine_reaches_answers_through_its_node(
    tmp_path: Path,
) -> None:
    async with (
        fake_server(VLLM) as server,
        adopter(tmp_path, server.url) as node,
        endpoint(node.url) as here,
    ):
        await here.until(lambda fleet: serving(fleet, "den/vllm"))
        whole = await here.post(CHAT, chat(cache_prompt=True))
        streamed = await here.post(CHAT, chat(stream=True))
        listed = await here.get("/v1/models")

        (found,) = here.balancer.state.current.candidates
        assert (found.engine.build, found.engine.context) == ("vllm", 2048)
        assert found.engine.busy == 3
        assert whole.status == 200
        assert whole.text == "Hello there"
        assert whole.headers["x-edgeserve-node"] == "den/vllm"
        assert b"Hello" in streamed.body
        assert b"[DONE]" in streamed.body
        assert "small" in {each["id"] for each in listed.json["data"]}


async def test_a_server_comes_and_goes_with_what_its_node_reports(
    tmp_path: Path,
) -> None:
    async with (
        fake_server(OLLAMA) as server,
        adopter(tmp_path, server.url) as node,
        endpoint(node.url) as here,
    ):
        await here.until(lambda fleet: serving(fleet, "den/ollama"))
        await server.stop()
        await here.until(lambda fleet: len(fleet.nodes) == 1)
        await server.start()
        await here.until(lambda fleet: serving(fleet, "den/ollama"))
        assert (await here.post(CHAT, chat())).status == 200
        node.stop.set()
        await eventually(lambda: "den/ollama" not in names(here))


async def test_a_request_goes_elsewhere_while_its_server_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "EVERY_SECONDS", 60.0)  # the node does not see it
    async with (
        fake_server(VLLM) as server,
        fake_node("pi") as other,
        adopter(tmp_path, server.url) as node,
        endpoint(other, node.url) as here,
    ):
        await here.until(lambda fleet: serving(fleet, "den/vllm"))
        await server.stop()
        answers = [await here.post(CHAT, chat(str(each))) for each in range(3)]

        assert [each.status for each in answers] == [200, 200, 200]
        assert {each.headers["x-edgeserve-node"] for each in answers} == {"pi"}


async def test_an_answer_that_breaks_off_at_a_relayed_server_ends_with_an_error(
    tmp_path: Path,
) -> None:
    gate = asyncio.Event()
    async with (
        fake_server(VLLM, script=[[*ANSWER[:2], None]], gate=gate) as server,
        adopter(tmp_path, server.url) as node,
        endpoint(node.url) as here,
    ):
        await here.until(lambda fleet: serving(fleet, "den/vllm"))
        async with here.session.post(CHAT, json=chat(stream=True)) as answer:
            await answer.content.readuntil(b"Hello")
            gate.set()
            rest = await answer.content.read()

        assert b'"error"' in rest
        assert b"broke off" in rest


async def test_a_client_that_leaves_ends_the_request_at_the_server(
    tmp_path: Path,
) -> None:
    gate, left = asyncio.Event(), asyncio.Event()
    async with (
        fake_server(VLLM, gate=gate, left=left) as server,
        adopter(tmp_path, server.url) as node,
        endpoint(node.url) as here,
    ):
        await here.until(lambda fleet: serving(fleet, "den/vllm"))
        async with here.session.post(CHAT, json=chat(stream=True)) as answer:
            await answer.content.readuntil(b"Hello")
            answer.close()
        async with asyncio.timeout(20):
            await left.wait()


async def test_a_failure_to_follow_is_made_up_for_at_the_next_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = list[str]()

    def step(kind: Kind, work: Callable[[], object]) -> None:
        if kind.name == "adopted servers" and not failed:
            failed.append(kind.name)
            raise ValueError("a mistake of ours")
        work()

    monkeypatch.setattr(background, "step", step)
    async with (
        fake_server(VLLM) as server,
        adopter(tmp_path, server.url) as node,
        endpoint(node.url) as here,
    ):
        await here.until(lambda fleet: serving(fleet, "den/vllm"))

    assert failed


async def test_two_servers_of_one_kind_have_names_of_their_own(tmp_path: Path) -> None:
    async with (
        fake_server(VLLM) as one,
        fake_server(VLLM) as two,
        adopter(tmp_path, one.url, two.url) as node,
        endpoint(node.url) as here,
    ):
        await here.until(lambda fleet: serving(fleet, f"den/vllm:{two.port}"))

        assert names(here) == {"den", "den/vllm", f"den/vllm:{two.port}"}


async def test_an_adopted_server_is_listed_and_only_its_node_removes_it(
    tmp_path: Path,
) -> None:
    async with (
        fake_server(VLLM) as server,
        adopter(tmp_path, server.url) as node,
        endpoint(node.url, state_dir=tmp_path) as here,
    ):
        await here.until(lambda fleet: serving(fleet, "den/vllm"))
        admin = admin_of(here, tmp_path)
        (shown,) = (await here.get("/edgeserve/v1/servers", admin)).json
        path = "/edgeserve/v1/servers/den%2Fvllm"
        async with here.session.delete(URL(path, encoded=True), headers=admin) as kept:
            said = (await kept.json())["error"]["message"]

        assert (shown["name"], shown["from"]) == ("den/vllm", "adopted")
        assert kept.status == 409
        assert "end it there, or start the node without --adopt" in said


async def test_a_server_that_is_named_by_its_url_too_counts_once(
    tmp_path: Path,
) -> None:
    async with (
        fake_server(VLLM) as server,
        fake_server({"/v1/models": listed("another")}) as other,
        adopter(tmp_path, server.url, other.url) as node,
        endpoint(node.url, servers=(server.url,)) as here,
    ):
        await here.until(lambda fleet: serving(fleet, "den/openai"))

        assert names(here) == {"den", f"127.0.0.1:{server.port}", "den/openai"}


async def test_an_adopted_server_takes_no_orders(
    tmp_path: Path,
) -> None:
    async with (
        fake_server(VLLM) as server,
        adopter(tmp_path, server.url) as node,
        endpoint(node.url, state_dir=tmp_path) as here,
    ):
        await here.until(lambda fleet: serving(fleet, "den/vllm"))
        admin = admin_of(here, tmp_path)
        refused = await here.post("/edgeserve/v1/models/small/unload", {}, admin)

        assert "den/vllm is a server of another program" in refused.body.decode()


async def test_its_node_does() -> None:
    at, other = Origin("den", 8090), Origin("gpu", 8000)
    setting = ServerSetting(url="http://127.0.0.1:8000#den")
    async with http.upstream(connect_seconds=1) as upstream:
        client = ServerClient(upstream)
        client.servers["a"] = Server(setting, at, "", upstream=upstream)
        client.servers["b"] = Server(setting, other, "")

        assert (client.is_at(at), client.is_at(other)) == (False, True)


def fleet_of(*reported: tuple[str, str, AdoptedServer]) -> Fleet:
    """Have nodes at hosts report a server each."""
    return Fleet(
        {
            name: NodeAddress(
                key=name,
                source="mdns",
                origins=(),
                state="up",
                last_report=LastReport(
                    Origin(host, 8090, tls=True, id=name),
                    a_report(name=name, servers=(server,)),
                ),
            )
            for name, host, server in reported
        }
    )


OLLAMA_THERE = AdoptedServer(port=11434, kind="ollama", name="ollama")


def found(
    fleet: Fleet, *named: str, own: tuple[str, ...] = ()
) -> dict[str, ServerSetting]:
    origins = [Origin(host, 11434) for host in named]
    return {each.name: each for each, _, _ in adopted(fleet, origins, own).values()}


def test_two_nodes_of_one_machine_bring_its_server_once() -> None:
    fleet = fleet_of(("a", "10.0.0.5", OLLAMA_THERE), ("b", "10.0.0.5", OLLAMA_THERE))

    assert set(found(fleet)) == {"a/ollama"}


@pytest.mark.parametrize("named", ["10.0.0.5", "a", "a.local", "127.0.0.1"])
def test_a_name_address_or_loopback_tells_that_a_server_is_named_already(
    named: str,
) -> None:
    fleet = fleet_of(("a", "10.0.0.5", OLLAMA_THERE))

    assert found(fleet, named, own=("10.0.0.5",)) == {}
    assert set(found(fleet, "10.0.0.9")) == {"a/ollama"}


def test_a_kind_that_only_newer_nodes_know_is_recognised_again() -> None:
    newer = AdoptedServer(
        port=1, kind="fancy", name="fancy", abilities=("chat", "telepathy"), width=3
    )

    (setting,) = found(fleet_of(("a", "10.0.0.5", newer))).values()

    assert (setting.kind, setting.abilities, setting.width) == ("auto", ("chat",), 3)
