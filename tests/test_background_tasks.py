"""Every background task fails in a real node and a real balancer, which serve on."""

from __future__ import annotations

import ast
import asyncio
import errno
import importlib
import logging
import pkgutil
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Never

import aiohttp
import pytest

import balancer
import edgeserve
import node
from balancer.app import Balancer, running
from balancer.caches.drains import Drains
from balancer.discovery import dns
from balancer.lifecycle.placement import Unload
from edgeserve import http
from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.errors import EdgeserveError
from edgeserve.orders.groups import FORM, FormGroup, GroupWorker
from edgeserve.orders.sleep import SleepOrder
from edgeserve.runtime import background, log
from edgeserve.runtime.background import KINDS, Kind, Work, failures
from edgeserve.wire import NodeReport, decode, encode
from node.app import serve
from node.engines.process import free_port
from tests.balancer.caches.building import Moving
from tests.balancer.discovery.joiners import a_balancer, a_joiner
from tests.balancer.energy.household import household
from tests.edgeserve.http.certificates import a_certificate
from tests.edgeserve.http.talk import echo, is_ours
from tests.fakes.gguf import a_model
from tests.fakes.rpc import worker_program
from tests.fakes.servers import fake_server, listed
from tests.fleet.llama_server import script
from tests.node.lifecycle.sleeper import Machine
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[1]
FAKE = ("--decode", "20", "--length", "20")
CHAT = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}

for package in (edgeserve, node, balancer):
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)

EVERY = {name: kind for name, kind in KINDS.items() if not name.startswith("test ")}
LASTING = [name for name, kind in EVERY.items() if kind.policy == "always"]
OWNERS = {
    "edgeserve/runtime/background.py": "the owner",
    "edgeserve/runtime/lifecycle.py": "serving itself; its end is the process's",
    "edgeserve/http/server/connection.py": "one request's; it ends with the connection",
    "balancer/response.py": "one request's; it ends before the answer does",
    "edgeserve/runtime/tasks.py": "runs until the first ends, in the foreground",
    "balancer/telemetry/otlp.py": "at the end of a balancer, for a bounded time",
    "node/tune/trial.py": "a command's, not a serving process's",
    "edgeserve/cli/doctor/checks.py": "a command's; they end with it",
    "quantize/worker/main.py": "a worker that leaves, on purpose, with its parent",
}
SPAWNING = {"create_task", "ensure_future", "TaskGroup", "Thread", "run_forever"}


class Saboteur:
    """Makes every kind of task fail at its first attempt, and at any moment later."""

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter()
        self._hit: dict[str, asyncio.Event] = {}

    async def attempt(self, kind: Kind, work: Work) -> None:
        self.attempts[kind.name] += 1
        if self.attempts[kind.name] == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        working = asyncio.ensure_future(work())
        hit = self._hit[kind.name] = asyncio.Event()
        hitting = asyncio.ensure_future(hit.wait())
        try:
            await asyncio.wait((working, hitting), return_when=asyncio.FIRST_COMPLETED)
            if hit.is_set():
                raise RuntimeError(f"{kind.name} was hit")
        finally:
            working.cancel()
            hitting.cancel()
            await asyncio.gather(working, hitting, return_exceptions=True)
        working.result()

    def step(self, kind: Kind, work: Callable[[], object]) -> None:
        self.attempts[kind.name] += 1
        if self.attempts[kind.name] == 1:
            raise ValueError("a mistake of ours")
        work()

    async def until(self, name: str, attempts: int) -> None:
        """Wait until a kind of task was begun so often."""
        try:
            async with asyncio.timeout(PATIENCE):
                while self.attempts[name] < attempts:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pytest.fail(f"{name!r} was begun {self.attempts[name]} times")

    async def hit(self, name: str) -> None:
        """Have it fail in the midst of its work; returns once it was begun again."""
        attempts = self.attempts[name]
        self._hit[name].set()
        await self.until(name, attempts + 1)


@pytest.fixture
def saboteur(monkeypatch: pytest.MonkeyPatch) -> Saboteur:
    saboteur = Saboteur()
    monkeypatch.setattr(background, "attempt", saboteur.attempt)
    monkeypatch.setattr(background, "step", saboteur.step)
    monkeypatch.setattr(background, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(dns, "system_resolver", no_name_server)
    log._logged.clear()
    return saboteur


def no_name_server() -> Never:
    raise dns.DnsFailed("tests ask no name server of others")


class Both:
    """A balancer and a node that serve in this process."""

    def __init__(
        self, running: Balancer, client: aiohttp.ClientSession, node_url: str
    ) -> None:
        self.balancer = running
        self.client = client
        self.node_url = node_url

    async def until_answering(self, max_tokens: int = 1, model: str = "small") -> None:
        """See a chat be answered by way of both."""
        async with asyncio.timeout(PATIENCE):
            while True:
                async with self.client.post(
                    "/v1/chat/completions",
                    json={**CHAT, "max_tokens": max_tokens, "model": model},
                ) as answer:
                    if answer.status == 200:
                        return
                await asyncio.sleep(0.05)

    async def form_a_group(self) -> None:
        """Have the node be the head of a group, and its worker as well."""
        report = await self._report()
        while not report.rpc:
            await asyncio.sleep(0.05)
            report = await self._report()
        worker = GroupWorker(
            node=report.id, name="", urls=(self.node_url,), share=1.0, memory=1
        )
        order = FormGroup(variant="small:F16", share=0.0, workers=(worker,))
        body = encode(order)
        async with self.client.post(self.node_url + FORM, data=body) as answer:
            assert answer.status == 202, await answer.text()

    async def _report(self) -> NodeReport:
        text = await self.text(f"{self.node_url}/edgeserve/v1/node")
        return decode(text, NodeReport)

    async def text(self, url: str) -> str:
        async with self.client.get(url) as answer:
            return await answer.text()


@asynccontextmanager
async def a_tls_port(folder: Path) -> AsyncGenerator[None]:
    """Hold a connection in its handshake."""
    context = a_certificate(folder).server()
    async with http.listen(
        http.bind("127.0.0.1", 0), echo, is_ours, [], body_limit=1, tls=lambda: context
    ) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield
        finally:
            writer.transport.abort()


@asynccontextmanager
async def a_join_request() -> AsyncGenerator[None]:
    """Have a machine ask to join."""
    async with a_balancer() as requests, a_joiner() as joiner:
        with suppress(EdgeserveError):  # its exchange is made to fail
            await requests.ask("127.0.0.1", joiner.request())
        if not requests.waiting:
            async with a_joiner() as again:
                await requests.ask("localhost", again.request())
        yield


@asynccontextmanager
async def sleeping_machines(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[None]:
    """Send one machine to sleep, tell another to, and wake a third."""
    async with (
        background.background() as tasks,
        household(folder, monkeypatch, sleep_after=1.0) as house,
    ):
        await Machine(tasks).sleeper.order(SleepOrder())
        house.has("attic", asleep=True)
        house.sleepers.waker.order(house.node("attic"))
        house.has("pi", asleep=False, model="other:Q4_1")
        await house.passes(3)
        yield


@asynccontextmanager
async def a_draining_node() -> AsyncGenerator[None]:
    """Move what a node holds that drains."""
    moving = Moving({"left": 1, "right": 1})
    sent = await moving.answered("system", "question")
    moving.becomes(sent.to.node, state="draining")
    async with background.background() as tasks:
        Drains(moving.mover).begin(tasks)
        yield


@asynccontextmanager
async def both(tmp_path: Path, server: str, adopted: str) -> AsyncGenerator[Both]:
    """Run them as their commands do, found by mDNS and by registration."""
    (tmp_path / "models").mkdir()
    worker_program(tmp_path)
    model = a_model(tmp_path / "models" / "small-F16.gguf")
    port = free_port()
    settings = BalancerSettings(
        port=port,
        state_dir=tmp_path / "balancer",
        servers=(server,),
        nodes=("dns://nodes.invalid",),
    )
    here = NodeSettings(
        name="kitchen",
        port=free_port(),
        state_dir=tmp_path / "node",
        models_dir=model.parent,
        models=(str(model),),
        llama_server=script(tmp_path / "llama-server", *FAKE),
        balancers=(f"http://127.0.0.1:{port}",),
        adopt_urls=(adopted,),
        sleep="false",
    )
    stop = asyncio.Event()
    async with running(settings, say=lambda _: None) as one:
        serving = asyncio.create_task(serve(here, stop))
        try:
            async with aiohttp.ClientSession(one.origin.url) as client:
                yield Both(one, client, f"http://127.0.0.1:{here.port}")
            assert not serving.done()
        finally:
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await serving


NODES = 'edgeserve_node_background_failures_total{node="kitchen"'
"""Comes with the node's next report."""


async def test_whichever_background_task_fails_requests_are_answered(
    saboteur: Saboteur,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = Counter(failures.counts)
    with caplog.at_level(logging.WARNING):
        async with (
            fake_server({"/v1/models": listed("another")}) as server,
            fake_server({"/v1/models": listed("adopted")}) as adopted,
            both(tmp_path, server.url, adopted.url) as there,
            a_tls_port(tmp_path),
            a_join_request(),
            sleeping_machines(tmp_path / "asleep", monkeypatch),
            a_draining_node(),
        ):
            # A request would measure the engine, and nobody calibrate it then.
            await saboteur.until("calibrate", 1)
            for each in there.balancer.state.current.candidates:
                there.balancer.state.breakers.failed(each.key, "doubt")  # has it probed
                # The order itself is made to fail.
                there.balancer.loader.order(Unload(to=each, why="a test"), 0.0)
            await there.until_answering(max_tokens=20)  # long enough to be watched
            # An answer of a server that is no node has that probed.
            await there.until_answering(model="another")
            await there.form_a_group()
            for name, kind in EVERY.items():
                await saboteur.until(name, 2 if kind.policy == "always" else 1)

            for name in LASTING:
                await saboteur.hit(name)
                await there.until_answering()

            async with asyncio.timeout(PATIENCE):
                while NODES not in (metrics := await there.text("/metrics")):
                    await asyncio.sleep(0.05)
            report = await there.text(f"{there.node_url}/edgeserve/v1/node")

    for name, kind in EVERY.items():
        count = failures.counts[name] - before[name]
        assert count >= 1 + (kind.policy == "always"), name
        said = f"background task '{name}"
        assert said in caplog.text
        assert f'edgeserve_background_failures_total{{task="{name}"}}' in metrics
    assert "which it should not" not in caplog.text
    assert '"failures":{' in report


def test_all_lasting_work_is_started_by_its_owner() -> None:
    """What this finds beside the owner has to end by itself, or end the process."""
    spawning = {
        str(path.relative_to(ROOT))
        for name in ("edgeserve", "node", "balancer", "quantize")
        for path in (ROOT / name).rglob("*.py")
        if SPAWNING & called(path)
    }

    assert spawning == set(OWNERS)


def called(path: Path) -> set[str]:
    """Name the functions and methods that a file calls."""
    calls = [
        each.func
        for each in ast.walk(ast.parse(path.read_text()))
        if isinstance(each, ast.Call)
    ]
    return {getattr(each, "attr", getattr(each, "id", "")) for each in calls}


def test_every_kind_is_declared_at_the_top_of_its_module() -> None:
    """So that importing all modules lists all kinds."""
    inside = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for name in ("edgeserve", "node", "balancer")
        for path in (ROOT / name).rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "declared"
    ]

    assert inside == []
