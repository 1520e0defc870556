"""Starts what a test asks: an engine alone, or node and balancer before one."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Generator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from balancer.app import running
from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.runtime.tether import tethered
from edgeserve.runtime.threads import openmp_environment
from node.app import serve
from node.engines import bundled, flags
from node.engines.base import EngineSpec
from node.engines.bundled import PARAMETERS
from node.engines.process import free_port
from node.planning import prepare
from tests.conformance import settings
from tests.conformance.settings import Parameters, Server

Mode = Literal["direct", "node", "balancer"]

START_SECONDS = 60.0
LOOK_SECONDS = 0.02


def until(true: Callable[[], bool]) -> None:
    """Wait, bounded."""
    deadline = time.monotonic() + START_SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("the server did not start")
        time.sleep(LOOK_SECONDS)


def answers(url: str) -> bool:
    """Whether an engine there has loaded its model."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@dataclass
class Engine:
    """One engine's process, asked without anything between."""

    process: subprocess.Popen[bytes]

    @classmethod
    def started(cls, server: Server, model: Path) -> Engine:
        """Start it, and return when its model has loaded."""
        server.server_port = free_port()
        given = {
            "model.path": str(model),
            **settings.parameters(server),
            **settings.only_direct(server),
        }
        log = Path(server.log_path or os.devnull)
        with log.open("wb") as output:
            engine = cls(
                subprocess.Popen(
                    tethered([sys.executable, "-m", "node.engines.bundled_host"]),
                    env={**openmp_environment(), PARAMETERS: json.dumps(given)},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
        try:
            until(lambda: engine.ready(f"http://127.0.0.1:{server.server_port}"))
        except BaseException:
            engine.stop()
            raise
        return engine

    def ready(self, url: str) -> bool:
        """Whether it serves; raises where it has died."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the engine ended with {self.process.returncode}")
        return answers(url)

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@functools.cache
def shared_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop that runs in a thread of its own, to the session's end.

    An engine dies with the thread that has started it.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


class Fleet:
    """A node and, if asked for, a balancer in this process; the engine is a child."""

    def __init__(self, server: Server, model: Path, *, balanced: bool) -> None:
        """Start them, and return when the engine can be asked."""
        self._scratch = tempfile.TemporaryDirectory(prefix="conformance-")
        self._loop = shared_loop()
        self._stop = asyncio.Event()
        self._balanced = balanced
        ready = Future[int]()
        work = self._live(server, model, ready)
        self._living = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._living.add_done_callback(lambda done: _pass_on(done, ready))
        try:
            server.server_port = ready.result(START_SECONDS)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End them."""
        self._loop.call_soon_threadsafe(self._stop.set)
        wait([self._living], START_SECONDS)
        self._scratch.cleanup()

    async def _live(self, server: Server, model: Path, ready: Future[int]) -> None:
        folder = Path(self._scratch.name)
        chosen = node_settings(server, model, folder)
        leave = asyncio.Event()
        with launching(settings.parameters(server)):
            serving = asyncio.ensure_future(serve(chosen, leave))
            try:
                await _until_ready(chosen.port, serving)
                if self._balanced:
                    await self._balance(server, chosen, ready)
                else:
                    ready.set_result(chosen.port)
                    await self._stop.wait()
            finally:
                leave.set()
                await serving

    async def _balance(
        self, server: Server, chosen: NodeSettings, ready: Future[int]
    ) -> None:
        url = f"http://127.0.0.1:{chosen.port}"
        folder = Path(self._scratch.name)
        keys = None
        if server.api_key:
            keys = folder / "keys"
            keys.write_text(server.api_key)
        asked = BalancerSettings(
            port=0, nodes=(url,), discover=False, calibrate=False, api_key_file=keys,
            state_dir=folder / "balancer",
        )  # fmt: skip
        async with running(asked, say=lambda _: None) as balancer:
            current = balancer.state.current
            async with asyncio.timeout(START_SECONDS):
                while all(each.unavailable for each in current.candidates):
                    await asyncio.sleep(LOOK_SECONDS)
            ready.set_result(balancer.origin.port)
            await self._stop.wait()


def _pass_on(done: Future[None], ready: Future[int]) -> None:
    error = done.exception()
    if error is not None and not ready.done():
        ready.set_exception(error)


def node_settings(server: Server, model: Path, folder: Path) -> NodeSettings:
    """Say the same to a node. It names a model by its file, which is linked to."""
    alias = (server.model_alias or model.stem).split(",")[0]
    named = folder / f"{alias}-{model.stem.rpartition('-')[2]}.gguf"
    named.symlink_to(model)
    role = "models"
    if server.server_reranking:
        role = "rerank_models"
    elif server.server_embeddings:
        role = "embedding_models"
    roles: dict[str, Any] = {role: (str(named),)}
    return NodeSettings(
        name="here",
        port=free_port(),
        models_dir=folder / "no-others",
        state_dir=folder / "node",
        engine="bundled",
        advertise=False,
        slots=settings.slots(server),
        context=settings.context(server),
        drain_seconds=1.0,
        **roles,
    )


@contextmanager
def launching(chosen: Parameters) -> Generator[None]:
    """Let the node tell its engine what the test says; all else is as always."""
    kept = {k: v for k, v in chosen.items() if not k.startswith("endpoint_")}
    usual = flags.parameters

    def parameters(spec: EngineSpec, port: int, api_key: str) -> Parameters:
        return {**usual(spec, port, api_key), **kept}

    with (
        patch.object(bundled, "parameters", parameters),
        patch.object(prepare, "find_engine", lambda _: _engine()),
        patch.object(prepare, "devices_of", lambda _: ()),
    ):
        yield


@functools.cache
def _engine() -> bundled.Bundled:
    """Look once whether it can be loaded: that takes a process."""
    return bundled.bundled()


async def _until_ready(port: int, serving: asyncio.Future[None]) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            if serving.done():
                serving.result()
                raise RuntimeError("the node ended")
            states = await asyncio.to_thread(_states, f"http://127.0.0.1:{port}")
            if "ready" in states:
                return
            if {"failed", "quarantined"} & set(states):
                raise RuntimeError("the engine does not start")
            await asyncio.sleep(LOOK_SECONDS)


def _states(url: str) -> list[str]:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return list(json.load(answer)["engines"].values())
    except OSError:
        return []
