"""Servers of other programs, as `make check-servers` has installed and starts them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import IO, Any, ClassVar

import psutil
import pytest

from edgeserve.config.servers import ServerSetting
from edgeserve.runtime.tether import tethered
from node.engines.process import free_port
from tests.patience import PATIENCE

SERVERS = os.environ.get("SERVERS_DIR")
"""The folder with a virtual environment for each program."""

START_SECONDS = 300
"""vLLM's imports alone take half a minute."""

CONTEXT = 1024
MODEL = "SmolLM2-135M-Instruct"
"""The model's name after all servers' own folders and owners have been cut off."""


def is_installed(program: str) -> bool:
    return SERVERS is not None and (Path(SERVERS) / program / "installed").exists()


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip a test without these programs."""
    missing = [each for each in programs if not is_installed(each)]
    if SERVERS is None:
        why = "needs servers of other programs: make check-servers"
    else:
        why = f"SERVERS='{' '.join(missing)}' make check-servers installs it"
    return pytest.mark.skipif(bool(missing), reason=why)


@dataclass(frozen=True)
class Weights:
    """The same model as a GGUF file and as a folder of Hugging Face's form."""

    file: Path
    folder: Path


class Program(ABC):
    """How to start one kind of server; `kind` is what the balancer takes it for.

    `refuses`: fields of a request that it refuses, and a part of its sentence. `long`:
    tokens of an answer that takes it some seconds.
    """

    name: ClassVar[str]
    kind: ClassVar[str] = "openai"
    key: ClassVar[str] = ""
    env: ClassVar[Mapping[str, str]] = {}
    refuses: ClassVar[tuple[dict[str, Any], str]]
    long: ClassVar[int] = 100
    context: ClassVar[int] = 0
    """What it tells."""

    @abstractmethod
    def argv(self, weights: Weights, port: int, scratch: Path) -> tuple[str, ...]:
        """Return its command; it may write into `scratch`."""

    def command(self, name: str) -> str:
        """Return the path of a command of its virtual environment."""
        assert SERVERS, "mark the test with `needs`"
        return str(Path(SERVERS) / self.name / "bin" / name)


class RayServe(Program):
    """deploy/ray with llama.cpp: one slot a replica, up to two replicas."""

    name = "ray"
    kind = "ray-serve"
    context = CONTEXT
    long = 800
    refuses = ({"response_format": {"type": "pictures"}}, "response_format")
    env: ClassVar[Mapping[str, str]] = {"RAY_USAGE_STATS_ENABLED": "0"}

    def argv(self, weights: Weights, port: int, scratch: Path) -> tuple[str, ...]:
        """See `Program.argv`."""
        args = {
            "model": str(weights.file),
            "name": MODEL.lower(),
            "slots": 1,
            "context": CONTEXT,
            "threads": 1,
            "cpus": 0.1,
            "upscale_seconds": 1,
            "max_replicas": 2,
        }
        application = {
            "name": "llama-cpp",
            "route_prefix": "/",
            "import_path": "edgeserve_ray.app:llama_cpp",
            "args": args,
        }
        config = {
            "http_options": {"host": "127.0.0.1", "port": port},
            "applications": [application],
        }
        path = scratch / "serve.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML, too
        return (self.command("serve"), "run", str(path))


class Mlx(Program):
    """mlx_lm.server, on the CPU."""

    name = "mlx"
    long = 60
    refuses = ({"logprobs": True, "top_logprobs": 30}, "top_logprobs")

    def argv(self, weights: Weights, port: int, scratch: Path) -> tuple[str, ...]:
        """See `Program.argv`."""
        # Without this folder its list of models is empty.
        (scratch / "hub").mkdir(exist_ok=True)
        return (
            self.command("mlx_lm.server"),
            *("--model", str(weights.folder)),
            *("--host", "127.0.0.1"),
            *("--port", str(port)),
        )


class TransformersServe(Program):
    """transformers serve."""

    name = "transformers"
    refuses = ({"guided_regex": "a+"}, "Unexpected fields")

    def argv(self, weights: Weights, port: int, scratch: Path) -> tuple[str, ...]:
        """See `Program.argv`."""
        (scratch / "hub").mkdir(exist_ok=True)
        return (
            *(self.command("transformers"), "serve", str(weights.folder)),
            *("--device", "cpu"),
            *("--host", "127.0.0.1"),
            *("--port", str(port)),
        )


class Vllm(Program):
    """vLLM's build for CPUs, with a key."""

    name = "vllm"
    kind = "vllm"
    key = "a-key-of-its-own"
    context = CONTEXT
    refuses = ({"logprobs": True, "top_logprobs": 30}, "logprobs")
    env: ClassVar[Mapping[str, str]] = {
        "VLLM_API_KEY": key,
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }

    def argv(self, weights: Weights, port: int, scratch: Path) -> tuple[str, ...]:
        """See `Program.argv`."""
        del scratch
        return (
            *(self.command("vllm"), "serve", str(weights.folder)),
            *("--served-model-name", f"HuggingFaceTB/{MODEL}"),
            *("--host", "127.0.0.1"),
            *("--port", str(port)),
            *("--max-model-len", str(CONTEXT)),
            *("--max-num-seqs", "4"),
            # bfloat16 is fifty times slower on processors without it.
            *("--dtype", "float32"),
            "--enforce-eager",
        )


class Node(Program):
    """One of our own nodes, with one slot; no program of others."""

    name = "node"
    context = CONTEXT

    def argv(self, weights: Weights, port: int, scratch: Path) -> tuple[str, ...]:
        """See `Program.argv`."""
        return (
            *(sys.executable, "-m", "edgeserve", "node", "start"),
            *("--name", self.name),
            *("--port", str(port)),
            *("--model", str(weights.file)),
            *("--slots", "1"),
            *("--context", str(CONTEXT)),
            *("--threads", "1"),
            *("--engine", "bundled"),
            *("--state-dir", str(scratch / "state")),
            "--no-advertise",
        )


PROGRAMS: tuple[Program, ...] = (RayServe(), Mlx(), TransformersServe(), Vllm())


@dataclass
class Running:
    """A server that runs, at the same port whenever it is started again."""

    program: Program
    weights: Weights
    scratch: Path
    log: IO[bytes]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def setting(self, **fields: Any) -> ServerSetting:
        """Return it as a balancer's `[[server]]`."""
        if self.program.key:
            path = self.scratch / "key"
            path.write_text(self.program.key)
            fields.setdefault("key_file", str(path))
        return ServerSetting(url=self.url, **fields)

    def start(self) -> None:
        """Start it, without waiting."""
        argv = self.program.argv(self.weights, self.port, self.scratch)
        scratch = str(self.scratch)
        env = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": scratch,
            "RAY_TMPDIR": scratch,
            **self.program.env,
        }
        self.process = subprocess.Popen(
            tethered(argv),
            env=env,
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def until_ready(self) -> None:
        """Wait until it lists its model."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                status, body = self.ask("GET", "/v1/models")
                if status == 200 and json.loads(body)["data"]:
                    return
            except (OSError, http.client.HTTPException, ValueError):
                pass
            time.sleep(0.2)
        raise AssertionError(f"{self.program.name} did not start: {self.last_words()}")

    def last_words(self) -> str:
        return Path(self.log.name).read_bytes()[-3000:].decode(errors="replace")

    def ask(self, method: str, path: str, **fields: Any) -> tuple[int, bytes]:
        """Ask the server itself."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=PATIENCE
        )
        headers = {"content-type": "application/json"}
        if self.program.key:
            headers["authorization"] = f"Bearer {self.program.key}"
        try:
            body = json.dumps(fields) if method == "POST" else None
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def model(self) -> str:
        """Return its model, as it calls it."""
        found: str = json.loads(self.ask("GET", "/v1/models")[1])["data"][0]["id"]
        return found

    def chat(self, words: str, **fields: Any) -> str:
        """Return its own direct answer."""
        messages = [{"role": "user", "content": words}]
        status, body = self.ask(
            "POST",
            "/v1/chat/completions",
            **{"model": self.model(), "messages": messages, "temperature": 0, **fields},
        )
        assert status == 200, body
        text: str = json.loads(body)["choices"][0]["message"]["content"]
        return text

    def tree(self) -> list[psutil.Process]:
        """Return its processes."""
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """End all of its processes by SIGKILL."""
        for each in self.tree():
            kill(each.pid)
        self.process.wait(PATIENCE)

    def stop(self) -> None:
        """End it as its own users would, and what is left by SIGKILL."""
        left = self.tree()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        for each in psutil.wait_procs(left, timeout=5)[1]:
            kill(each.pid)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@contextmanager
def serving(program: Program, weights: Weights) -> Generator[Running]:
    """Run a server until the block ends. The path is short: Ray's sockets lie there."""
    scratch = Path(tempfile.mkdtemp(prefix="es-", dir="/tmp"))
    try:
        with (scratch / "log").open("wb") as log:
            running = Running(program, weights, scratch, log)
            running.start()
            try:
                running.until_ready()
                yield running
            finally:
                running.stop()
    finally:
        rmtree(scratch, ignore_errors=True)
