"""Real nodes on loopback, with a fleet token and llama.cpp's own programs."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec
import psutil

from edgeserve.errors import EdgeserveError
from edgeserve.http import Origin, upstream
from edgeserve.http.channel.opening import FleetChannel
from edgeserve.http.client.pool import Pool
from edgeserve.orders.groups import FORM, FormGroup, GroupWorker
from edgeserve.security.tokens import FleetTokens
from edgeserve.wire import EngineReport, NodeReport, decode, encode
from node.engines.process import free_port
from tests.native import tool
from tests.node.groups.grouped import group
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[3]
TOKEN = "fleet-token-of-the-tests"
VARIANT = "smollm2-135m-instruct:Q4_1"
PROMPT = "The capital of France is Paris. The capital of Italy is"
LAYERS_BYTES = 2**27
HERE = ("--host", "127.0.0.1")

Seen = Callable[[NodeReport], object]


@dataclass
class RealNode:
    """A node's process. `urls` are where a head finds it."""

    name: str
    folder: Path
    ask: Pool
    port: int
    limit: Path | None = None
    running: subprocess.Popen[bytes] | None = None
    urls: tuple[str, ...] = ()
    flags: tuple[str, ...] = HERE
    environ: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def origin(self) -> Origin:
        return Origin("127.0.0.1", self.port, tls=True)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start its process."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "EDGESERVE_CONFIG_DIR": str(self.folder / "config"),
            "EDGESERVE_STATE_DIR": str(self.folder / "state"),
            "EDGESERVE_MODELS_DIR": str(self.folder / "models"),
            **self.environ,
        }
        flags = ("--port", str(self.port), "--name", self.name)
        more = ("--no-advertise", "--llama-server", str(tool("llama-server")))
        argv = [sys.executable, "-m", "edgeserve", "node", "start"]
        with (self.folder / "log").open("ab") as out:
            self.running = subprocess.Popen(
                [*argv, *flags, *more, *self.flags],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        if self.limit is not None:
            (self.limit / "cgroup.procs").write_text(str(self.running.pid))

    @property
    def process(self) -> psutil.Process:
        assert self.running is not None
        return psutil.Process(self.running.pid)

    def kill_worker(self) -> None:
        """End the process of its worker."""
        self._child("ggml-rpc-server", "").kill()

    def freeze_worker(self) -> None:
        """Stop the process of its worker; nobody is told."""
        self._child("ggml-rpc-server", "").suspend()

    def kill_engine(self) -> None:
        """End the process of its group's engine."""
        self._child("llama-server", "--rpc").kill()

    def freeze(self) -> None:
        """Stop its own process, but not those of its workers."""
        self.process.suspend()

    def thaw(self) -> None:
        """Let it go on."""
        self.process.resume()

    def _child(self, program: str, flag: str) -> psutil.Process:
        for each in self.process.children(recursive=True):
            command = each.cmdline()
            if program in " ".join(command[:1]) and (not flag or flag in command):
                return each
        raise AssertionError(f"{self.name} has no {program}")

    def used(self) -> int:
        """Return the bytes that no file backs, of the node and all its processes."""
        everything = (self.process, *self.process.children(recursive=True))
        return sum(each.memory_full_info().uss for each in everything)

    def kill(self) -> None:
        """End it at once."""
        if self.running is not None:
            self.running.kill()
            self.running.wait(PATIENCE)
            self.running = None

    async def report(self) -> NodeReport:
        async with self.ask.ask(self.origin, "GET", "/edgeserve/v1/node", {}) as answer:
            return decode(await answer.read(), NodeReport)

    async def post(self, path: str, body: Any) -> tuple[int, bytes]:
        async with self.ask.ask(
            self.origin,
            "POST",
            path,
            {"content-type": "application/json"},
            encode(body),
        ) as answer:
            return answer.status, await answer.read()

    async def until(self, seen: Seen) -> NodeReport:
        """Ask until its report is as wanted."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(EdgeserveError, OSError):
                report = await self.report()
                if seen(report):
                    return report
            await asyncio.sleep(0.1)
        raise AssertionError(f"{self.name}: not within {PATIENCE:g} s\n{self.log}")

    async def worker(self, share: float) -> GroupWorker:
        """Describe it as a worker."""
        report = await self.report()
        return GroupWorker(
            node=report.id,
            name=self.name,
            urls=self.urls or (self.origin.url,),
            share=share,
            memory=LAYERS_BYTES,
        )

    async def form(self, *workers: GroupWorker, context: int = 1024) -> EngineReport:
        """Have it be the head of a group; returns the report once it serves."""
        share = max(0.0, 1 - sum(each.share for each in workers))
        order = FormGroup(
            variant=VARIANT, share=share, workers=workers, context=context
        )
        status, body = await self.post(FORM, order)
        assert status == 202, body
        report = await self.until(serving)
        found = group(report)
        assert found is not None
        return found

    async def complete(
        self, model: str = VARIANT, tokens: int = 24, prompt: str = PROMPT
    ) -> dict[str, Any]:
        """Complete a prompt at temperature 0."""
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
        }
        async with self.ask.ask(
            self.origin,
            "POST",
            "/v1/completions",
            {"content-type": "application/json"},
            encode(body),
        ) as answer:
            raw = await answer.read()
            assert answer.status == 200, raw
            found: dict[str, Any] = msgspec.json.decode(raw)
            return found


def serving(report: NodeReport) -> bool:
    """Whether its group serves."""
    found = group(report)
    return found is not None and found.state in {"ready", "busy"}


@contextmanager
def memory_limits(count: int, size: int) -> Generator[list[Path]]:
    """Make cgroups that hold their processes to so many bytes each.

    Raises OSError where none can be made.
    """
    lines = Path("/proc/self/cgroup").read_text().split()
    found = {line.split(":")[1]: line.split(":")[2] for line in lines}
    old = "memory" in found
    root = Path("/sys/fs/cgroup") / ("memory" if old else "")
    parent = root / found["memory" if old else ""].lstrip("/")
    made = list[Path]()
    try:
        for at in range(count):
            made.append(parent / f"edgeserve-test-{os.getpid()}-{at}")
            made[-1].mkdir()
            name = "memory.limit_in_bytes" if old else "memory.max"
            (made[-1] / name).write_text(str(size))
        yield made
    finally:
        for each in made:
            with suppress(OSError):
                each.rmdir()


@contextmanager
def ended(nodes: list[RealNode]) -> Generator[None]:
    try:
        yield
    finally:
        for each in nodes:
            each.kill()


def link_or_copy(model: Path, to: Path) -> None:
    try:
        to.hardlink_to(model)
    except OSError:
        shutil.copy(model, to)


@asynccontextmanager
async def real_nodes(
    folder: Path,
    model: Path,
    *names: str,
    flags: tuple[str, ...] = HERE,
    limits: Sequence[Path | None] = (),
    environs: Sequence[dict[str, str]] = (),
) -> AsyncGenerator[list[RealNode]]:
    """Run nodes; the first has the model. `limits` are their cgroups.

    `environs` are added to their environments.
    """
    token = folder / "token"
    token.write_text(TOKEN)
    channel = FleetChannel(FleetTokens(token))
    nodes = list[RealNode]()
    with ended(nodes):
        async with upstream(connect_seconds=PATIENCE, channel=channel) as ask:
            for name, limit, environ in zip_longest(names, limits, environs):
                own = folder / name
                for each in ("config", "models"):
                    (own / each).mkdir(parents=True)
                shutil.copy(token, own / "config" / "token")
                if not nodes:
                    link_or_copy(model, own / "models" / f"{model.stem}.gguf")
                node = RealNode(name, own, ask, free_port(), limit, flags=flags)
                node.environ = environ or {}
                nodes.append(node)
                node.start()
            for node in nodes:
                await node.until(lambda report: report.rpc)
            yield nodes
