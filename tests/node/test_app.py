from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import SettingsError
from edgeserve.orders.log import LOG, NodeLog
from edgeserve.wire import NodeReport, decode
from node.app import address, check_balancers, serve
from node.engines.process import free_port
from tests.fakes.gguf import a_model
from tests.fleet.llama_server import script
from tests.node.served import served
from tests.patience import PATIENCE

TOKEN = "a-token-of-this-fleet"
HELLO = {
    "messages": [{"role": "user", "content": "hello"}],
    "stream": True,
    "return_progress": True,
}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("models") / "small-F16.gguf")


@pytest.fixture
def settings(tmp_path: Path, model: Path) -> NodeSettings:
    flags = ("--hold", str(tmp_path / "hold"))
    return NodeSettings(
        name="kitchen",
        port=free_port(),
        state_dir=tmp_path / "state",
        models_dir=tmp_path / "models",
        models=(str(model),),
        llama_server=script(tmp_path / "llama-server", *flags),
        slots=2,
        advertise=False,
    )


class Running:
    """A node in this process, asked over HTTP."""

    def __init__(self, client: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        self.client = client
        self.stop = stop

    async def report(self) -> NodeReport:
        async with self.client.get("/edgeserve/v1/node") as answer:
            return decode(await answer.read(), NodeReport)

    async def until_ready(self) -> NodeReport:
        async with asyncio.timeout(PATIENCE):
            while True:
                report = await self.report()
                if report.engines and report.engines[0].state == "ready":
                    return report
                await asyncio.sleep(0.02)


@asynccontextmanager
async def running(settings: NodeSettings) -> AsyncGenerator[Running]:
    async with served(settings) as (client, stop):
        yield Running(client, stop)


async def test_the_port_answers_before_the_model_has_loaded(
    settings: NodeSettings, tmp_path: Path
) -> None:
    endless = script(tmp_path / "endless", "--load-seconds", "600")
    slow = dataclasses.replace(settings, llama_server=endless)
    async with running(slow) as node:
        report = await node.report()

    assert report.name == "kitchen"
    assert [each.state for each in report.engines] in ([], ["loading"])


async def test_a_loaded_model_answers_through_the_node(settings: NodeSettings) -> None:
    async with running(settings) as node:
        report = await node.until_ready()
        async with node.client.post("/v1/chat/completions", json=HELLO) as answer:
            body = await answer.read()

    assert report.engines[0].slots == 2
    assert answer.status == 200
    assert body.endswith(b"data: [DONE]\n\n")


async def test_the_log_says_what_was_said_at_the_start(settings: NodeSettings) -> None:
    async with running(settings) as node:
        report = await node.until_ready()
        async with node.client.get(LOG) as answer:
            found = decode(await answer.read(), NodeLog)

    told = " ".join(each.text for each in found.lines)
    assert f"127.0.0.1:{settings.port}" in told
    assert found.next.startswith(f"{report.instance}-")


async def test_stopping_lets_a_stream_finish_and_refuses_what_is_new(
    settings: NodeSettings, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    async with running(settings) as node:
        await node.until_ready()
        async with node.client.post("/v1/chat/completions", json=HELLO) as answer:
            await answer.content.readany()
            node.stop.set()
            async with node.client.post("/v1/chat/completions", json=HELLO) as late:
                pass
            hold.unlink()
            rest = await answer.content.read()

    assert late.status == 503
    assert int(late.headers["retry-after"]) > 0
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_stopping_waits_no_longer_than_the_settings_say(
    settings: NodeSettings, tmp_path: Path
) -> None:
    endless = script(tmp_path / "endless", "--decode", "20", "--length", "5000")
    brief = dataclasses.replace(settings, llama_server=endless, drain_seconds=0.1)
    body = {**HELLO, "max_tokens": 5000}
    async with running(brief) as node:
        await node.until_ready()
        async with node.client.post("/v1/chat/completions", json=body) as answer:
            await answer.content.readany()
            node.stop.set()
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.content.read()


async def test_followers_get_the_shutdown_before_the_end(
    settings: NodeSettings,
) -> None:
    async with (
        running(settings) as node,
        node.client.get("/edgeserve/v1/events") as events,
    ):
        await events.content.readuntil(b"\n\n")
        node.stop.set()
        rest = await events.content.read()

    assert b'"state":"draining"' in rest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": ()}, "no model in"),
        ({"models": ("nothing-such",)}, "nothing-such"),
        ({"llama_server": Path("/nowhere/llama-server")}, "/nowhere/llama-server"),
    ],
    ids=["empty folder", "unknown model", "no engine"],
)
async def test_a_node_without_an_engine_stays_up_and_says_why(
    settings: NodeSettings, change: dict[str, Any], said: str
) -> None:
    async with running(dataclasses.replace(settings, **change)) as node:
        async with asyncio.timeout(PATIENCE):
            while not (report := await node.report()).problems:
                await asyncio.sleep(0.02)
        async with node.client.post("/v1/chat/completions", json=HELLO) as answer:
            pass

    assert any(said in each for each in report.problems)
    assert answer.status == 503


async def test_a_foreign_file_is_named_and_the_other_model_served(
    settings: NodeSettings, model: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign.gguf"
    foreign.write_bytes(b"PK\x03\x04 not a model")
    both = dataclasses.replace(settings, models=(str(foreign), str(model)))
    async with running(both) as node:
        report = await node.until_ready()

    assert [each.model for each in report.engines] == ["small"]
    assert "foreign.gguf" in report.problems[0]


async def test_names_that_are_not_utf_8_do_not_end_the_node(
    settings: NodeSettings, model: Path
) -> None:
    settings.models_dir.mkdir()
    folder = os.fsencode(settings.models_dir)
    for name in (b"caf\xe9.gguf", b"\xff\xfe.gguf"):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(model.read_bytes())
    (settings.models_dir / "sound.gguf").write_bytes(model.read_bytes())
    every = dataclasses.replace(settings, models=())
    async with (
        running(every) as node,
        node.client.get("/edgeserve/v1/events") as events,
    ):
        report = await node.until_ready()
        first = await events.content.readuntil(b"\n\n")

    assert first.startswith(b"event: report")
    assert [each.model for each in report.engines] == ["sound"]
    assert [each for each in report.problems if "not UTF-8; rename it" in each]


async def test_two_nodes_on_one_state_folder_are_refused(
    settings: NodeSettings,
) -> None:
    async with running(settings):
        other = dataclasses.replace(settings, port=free_port())
        with pytest.raises(SettingsError, match="--state-dir"):
            await serve(other, asyncio.Event())


async def test_a_port_in_use_is_one_sentence(settings: NodeSettings) -> None:
    async with running(settings):
        other = dataclasses.replace(settings, state_dir=settings.state_dir / "other")
        with pytest.raises(SettingsError, match=r"in use; .* --port"):
            await serve(other, asyncio.Event())


async def test_no_task_outlives_the_agent(settings: NodeSettings) -> None:
    before = asyncio.all_tasks()
    async with running(settings) as node:
        await node.until_ready()

    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    ("host", "token", "bound"),
    [
        (None, None, "127.0.0.1"),
        (None, TOKEN, "::"),
        ("127.0.0.1", None, "127.0.0.1"),
        ("192.168.1.5", TOKEN, "192.168.1.5"),
    ],
)
def test_past_loopback_only_with_a_token(
    host: str | None, token: str | None, bound: str
) -> None:
    assert address(NodeSettings(host=host), joined=token is not None) == bound


def test_a_balancer_elsewhere_cannot_reach_a_node_on_loopback() -> None:
    settings = NodeSettings(balancers=("http://192.168.1.20:8080",))

    with pytest.raises(SettingsError, match=r"192.168.1.20.*edgeserve join"):
        check_balancers(settings, "127.0.0.1")
    check_balancers(settings, "::")
    check_balancers(NodeSettings(balancers=("http://[::1]:8080",)), "127.0.0.1")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5"])
def test_without_a_token_others_are_kept_out(host: str) -> None:
    with pytest.raises(SettingsError, match="edgeserve token new"):
        address(NodeSettings(host=host), joined=False)
