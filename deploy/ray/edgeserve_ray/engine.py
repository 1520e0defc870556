"""Engine: a server process on loopback that lives exactly as long as its replica.

The kernel ends it with the replica, however that ends. A replica whose engine has ended
ends itself, so that Ray Serve replaces both at once.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from edgeserve.config.settings import LOOPBACK, NodeSettings
from edgeserve.runtime.tether import tethered
from edgeserve.runtime.threads import openmp_environment, threads_for
from edgeserve.wire import Launch
from edgeserve_ray.settings import EngineSettings, LlamaCppSettings, VllmSettings
from node.engines.base import Command, EngineSpec
from node.engines.find import find_engine
from node.engines.process import free_port

log = logging.getLogger(__name__)

BATCH = 512
"""Tokens of a decode call, which bounds how long a cancellation can take."""

LOOK_SECONDS = 0.2
ASK_SECONDS = 10.0
STOP_SECONDS = 5.0


def command_of(settings: EngineSettings, port: int, key: str) -> Command:
    """Return what to start. Raises EngineUnavailable."""
    match settings:
        case LlamaCppSettings():
            return _llama_cpp(settings, port, key)
        case VllmSettings():
            return _vllm(settings, port, key)
        case _:
            raise TypeError(f"no engine has {type(settings).__name__}")


def _llama_cpp(settings: LlamaCppSettings, port: int, key: str) -> Command:
    """Return the engine that a node of ours would run, with the same flags."""
    named = Path(settings.llama_server) if settings.llama_server else None
    spec = EngineSpec(
        id=settings.served,
        model=settings.served,
        variant=settings.served,
        path=Path(settings.model).expanduser(),
        role="generate",
        abilities=("chat", "completion", "tools"),
        launch=Launch(
            slots=settings.slots,
            context=settings.context,
            batch=BATCH,
            threads=threads_for(settings.threads),
            gpu_layers=settings.gpu_layers,
        ),
    )
    engine = find_engine(NodeSettings(llama_server=named))
    return engine.command(spec, port=port, api_key=key)


def _vllm(settings: VllmSettings, port: int, key: str) -> Command:
    argv = (
        str(Path(sys.executable).with_name("vllm")),
        *("serve", settings.model),
        *("--served-model-name", settings.served),
        *("--host", LOOPBACK),
        *("--port", str(port)),
        *("--max-model-len", str(settings.context)),
        *("--max-num-seqs", str(settings.slots)),
        *shlex.split(settings.flags),
    )
    # Not in argv, which every user of the machine can read.
    return Command(argv, {"VLLM_API_KEY": key})


class RunningEngine:
    """A started engine. It answers only those who have its key."""

    def __init__(self, settings: EngineSettings) -> None:
        """Start it, and wait until it has loaded. Raises RuntimeError.

        Call it from a thread that lives as long as the process: the kernel watches it.
        """
        key, port = secrets.token_urlsafe(32), free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        self.headers = {"authorization": f"Bearer {key}"}
        self._stopping = threading.Event()
        command = command_of(settings, port, key)
        self._process = subprocess.Popen(
            tethered(command.argv),
            env={**openmp_environment(), **command.env},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._load(settings.start_seconds)
        except BaseException:
            self.stop()
            raise
        threading.Thread(target=self._end_with_it, daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _load(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._is_healthy():
            if (status := self._process.poll()) is not None:
                raise RuntimeError(f"the engine ended with status {status}; see above")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the engine did not load within {seconds:g} s")
            time.sleep(LOOK_SECONDS)

    def _is_healthy(self) -> bool:
        asked = urllib.request.Request(f"{self.url}/health", headers=self.headers)  # noqa: S310 - http on loopback
        try:
            with urllib.request.urlopen(asked, timeout=ASK_SECONDS) as answer:  # noqa: S310 - the same
                return bool(answer.status == 200)
        except OSError:
            return False

    def _end_with_it(self) -> None:
        status = self._process.wait()
        if not self._stopping.is_set():
            log.error(
                "the engine ended with status %d, and so does its replica", status
            )
            os._exit(1)

    def stop(self) -> None:
        """End it and its own children."""
        self._stopping.set()
        try:
            self._signal(signal.SIGTERM)
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("engine %d ignores SIGTERM", self.pid)
        finally:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return
