"""Pulls of a fleet: a balancer, three nodes and the command that orders them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from balancer.app import Balancer, running
from edgeserve.config.paths import admin_key_file
from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.orders.pulls import PULLS
from node.app import serve
from node.engines.process import free_port
from tests.balancer.endpoint import QUICK
from tests.edgeserve.models.pull.conftest import hub as hub
from tests.edgeserve.models.pull.repository import FILE, MODEL, REPO
from tests.fakes.gguf import a_model
from tests.fakes.hub import Hub
from tests.fakes.terminal import Seen, Terminal
from tests.fakes.tokens import TOKEN
from tests.fleet.llama_server import script
from tests.patience import PATIENCE

NAMES = ("attic", "kitchen", "pi")


@dataclass
class PullingFleet:
    """A fleet whose nodes have no model yet."""

    folder: Path
    balancer: Balancer
    edgeserve: Terminal

    def models(self, name: str) -> Path:
        return self.folder / name / "models"

    async def command(self, *words: str) -> Seen:
        """Run `edgeserve pull …` against this balancer."""
        given = ("--url", self.balancer.origin.url, "--api-key-file")
        key = admin_key_file(self.folder / "balancer", self.balancer.origin.port)
        return await asyncio.to_thread(self.edgeserve, "pull", *words, *given, str(key))

    async def ask(self, method: str, path: str, body: Any = None, key: str = "") -> Any:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with (
            aiohttp.ClientSession(self.balancer.origin.url) as session,
            session.request(method, path, json=body, headers=headers) as answer,
        ):
            return answer.status, json.loads(await answer.read())


@asynccontextmanager
async def serving(settings: NodeSettings) -> AsyncGenerator[None]:
    """Run a node."""
    stop = asyncio.Event()
    running = asyncio.create_task(serve(settings, stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await running


@asynccontextmanager
async def a_fleet(folder: Path, edgeserve: Terminal) -> AsyncGenerator[PullingFleet]:
    """Run a balancer and three nodes in this process, with a fleet token."""
    token = folder / "token"
    token.write_text(f"{TOKEN}\n")
    async with AsyncExitStack() as stack:
        urls = list[str]()
        for name in NAMES:
            settings = NodeSettings(
                name=name,
                host="127.0.0.1",
                port=free_port(),
                token_file=token,
                state_dir=folder / name / "state",
                models_dir=folder / name / "models",
                advertise=False,
                llama_server=script(folder / f"{name}-server", "--decode", "500"),
            )
            await stack.enter_async_context(serving(settings))
            urls.append(f"https://127.0.0.1:{settings.port}")
        own = BalancerSettings(
            port=0,
            state_dir=folder / "balancer",
            token_file=token,
            discover=False,
            calibrate=False,
            nodes=tuple(urls),
        )
        balancer = await stack.enter_async_context(
            running(own, say=lambda _: None, pace=QUICK)
        )
        async with asyncio.timeout(PATIENCE):
            while len(balancer.state.current.fleet.nodes) < len(NAMES):
                await asyncio.sleep(0.02)
        yield PullingFleet(folder, balancer, edgeserve)


async def test_one_command_brings_a_model_to_every_node_with_one_download(
    hub: Hub, tmp_path: Path, edgeserve: Terminal
) -> None:
    async with a_fleet(tmp_path, edgeserve) as fleet:
        seen = await fleet.command(REPO, "--everywhere")

        assert seen.status == 0, seen
        for name in NAMES:
            target = fleet.models(name) / REPO / FILE
            assert target.read_bytes() == MODEL
            assert f"{name}: {target}" in seen.out
        assert hub.downloads() == [""]


async def test_a_model_that_a_node_has_is_copied_by_its_name(
    hub: Hub, tmp_path: Path, edgeserve: Terminal
) -> None:
    async with a_fleet(tmp_path, edgeserve) as fleet:
        fleet.models("attic").mkdir(parents=True)
        a_model(fleet.models("attic") / "small.Q8_0.gguf")
        seen = await fleet.command("small", "--to", "pi")

        target = fleet.models("pi") / "small.Q8_0.gguf"
        assert seen.out.endswith(f"pi: {target}\n"), seen
        assert target.read_bytes() == (fleet.models("attic") / target.name).read_bytes()
        assert hub.asked == []


async def test_what_fails_is_said_for_each_node(
    hub: Hub, tmp_path: Path, edgeserve: Terminal
) -> None:
    hub.gated.add(REPO)
    async with a_fleet(tmp_path, edgeserve) as fleet:
        seen = await fleet.command(REPO, "--to", "pi", "--to", "attic")
        unknown = await fleet.command("no-such-model", "--to", "pi")

    assert (seen.status, unknown.status) == (1, 1)
    assert "attic: org/tiny-GGUF is gated" in " ".join(seen.err.split())
    assert "pi: org/tiny-GGUF is gated" in " ".join(seen.err.split())
    assert "HF_TOKEN counts where a node runs" in " ".join(seen.err.split())
    assert "counts where" not in unknown.err
    assert "no node that answers has a model" in " ".join(unknown.err.split())


async def test_only_an_admin_orders_pulls_and_wrong_orders_are_refused(
    tmp_path: Path, edgeserve: Terminal
) -> None:
    async with a_fleet(tmp_path, edgeserve) as fleet:
        everywhere = {"source": REPO, "everywhere": True}
        refused, _ = await fleet.ask("POST", PULLS, everywhere)
        cancelled, _ = await fleet.ask("DELETE", f"{PULLS}/1")
        nowhere = await fleet.command(REPO, "--to", "garage")
        a_path = await fleet.command("/etc/passwd", "--to", "pi")
        nothing = await fleet.command(REPO, "--everywhere", "--cancel")

    assert (refused, cancelled) == (403, 403)
    assert "no node 'garage' is up; there are: attic, kitchen, pi" in nowhere.err
    assert "a path of one machine" in " ".join(a_path.err.split())
    assert f"no node pulls {REPO} now" in nothing.err
    assert (nowhere.status, a_path.status, nothing.status) == (1, 1, 1)


async def test_a_pull_is_shown_and_stopped_and_goes_on_later(
    hub: Hub, tmp_path: Path, edgeserve: Terminal
) -> None:
    hub.cut_after, hub.cuts, hub.stay = 100_000, 1, threading.Event()
    async with a_fleet(tmp_path, edgeserve) as fleet:
        first = asyncio.create_task(fleet.command(REPO, "--to", "pi"))
        await shown(fleet, "fetching")
        stopped = await fleet.command(REPO, "--to", "pi", "--cancel")
        hub.stay.set()
        seen = await first
        again = await fleet.command(REPO, "--to", "pi")

        assert "pi: stopped; what has come is kept\n" in stopped.out
        assert (seen.status, again.status) == (1, 0), again
        assert hub.downloads()[-1].startswith("bytes=")
        assert (fleet.models("pi") / REPO / FILE).read_bytes() == MODEL


async def shown(fleet: PullingFleet, state: str) -> None:
    """Wait until the balancer shows a pull in a state."""
    async with asyncio.timeout(PATIENCE):
        while True:
            _, rows = await fleet.ask("GET", PULLS)
            if [each["pull"]["state"] for each in rows] == [state]:
                return
            await asyncio.sleep(0.05)
