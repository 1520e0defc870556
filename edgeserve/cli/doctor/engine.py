"""Engine and GPUs: whether llama.cpp runs here and answers, and with which GPUs.

The engine is tried with a tiny model of random weights, so that a model's own faults
are not taken for the engine's.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeserve.cli.doctor.finding import Finding, ok, problem, unknown
from edgeserve.cli.doctor.here import Here
from edgeserve.config.settings import LOOPBACK, NodeSettings
from edgeserve.errors import EngineUnavailable
from edgeserve.openai import SMALLEST
from edgeserve.reports.hardware import Gpu
from edgeserve.runtime.tether import tethered
from edgeserve.runtime.threads import openmp_environment
from edgeserve.security.tokens import new_secret
from edgeserve.wire import Launch
from node.engines.base import Engine, EngineSpec
from node.engines.devices import devices_of
from node.engines.find import find_engine
from node.engines.native import find, native
from node.engines.process import free_port
from node.hardware.gpus import gpus

ANSWER_SECONDS = 7.0
"""How long the engine may take to start and to write a token."""

PAUSE_SECONDS = 0.05

LAUNCH = Launch(slots=1, context=256, batch=64, threads=1)

DRIVER = Path("/dev/nvidia0")
ROCM = Path("/dev/kfd")


@dataclass(frozen=True, kw_only=True)
class Tried:
    """How the trial of an engine ended; `passed_over` is a native one that fails."""

    build: str = ""
    why: str = ""
    slow: bool = False
    passed_over: str = ""


def engine(here: Here) -> Iterator[Finding]:
    """Check that the engine starts and answers."""
    yield from engine_findings(tried(here.node.settings), here.node.settings)


def tried(settings: NodeSettings) -> Tried:
    """Find the engine as a node does, and have it write a token."""
    passed_over = _passed_over(settings)
    try:
        found = find_engine(settings)
    except EngineUnavailable as error:
        return Tried(why=str(error))
    name = f"{found.kind} {found.build}"
    with tempfile.TemporaryDirectory(prefix="edgeserve-doctor-") as folder:
        why, slow = _first_token(found, Path(folder))
    return Tried(build=name, why=why, slow=slow, passed_over=passed_over)


def _passed_over(settings: NodeSettings) -> str:
    """Return why a llama-server that is there is not used; "" where it is."""
    if settings.engine == "bundled" or settings.llama_server is not None:
        return ""
    path = find(None, settings.state_dir)
    try:
        if path is not None:
            native(path)
    except EngineUnavailable as error:
        return str(error)
    return ""


def _first_token(engine: Engine, folder: Path) -> tuple[str, bool]:
    """Start the engine and ask; return what went wrong, and whether it was slow."""
    from edgeserve.models.synthetic import Shape, a_model  # it brings numpy

    shape = Shape(layers=1, embedding=64, feed_forward=128, vocabulary=512)
    model = a_model(folder / "doctor.gguf", shape)
    spec = EngineSpec(
        id="doctor", model="doctor", variant="doctor:F16", path=model, role="generate",
        abilities=("completion",), launch=LAUNCH,
    )  # fmt: skip
    port, key = free_port(), new_secret("doctor")
    command = engine.command(spec, port=port, api_key=key)
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            tethered(command.argv),
            env={**openmp_environment(), **command.env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        return _asked(running, port, key, folder / "log")
    finally:
        running.kill()
        running.wait()


def _asked(
    running: subprocess.Popen[bytes], port: int, key: str, log: Path
) -> tuple[str, bool]:
    path, body = SMALLEST["completion"]
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    end = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < end:
        if running.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            return f"it ends with status {running.returncode}: {' '.join(last)}", False
        left = max(0.1, end - time.monotonic())
        asked = http.client.HTTPConnection(LOOPBACK, port, timeout=left)
        try:
            asked.request("POST", path, msgspec.json.encode(body), headers)
            status = asked.getresponse().status
        except (OSError, http.client.HTTPException):
            status = 503
        finally:
            asked.close()
        if status != 503:  # 503: the model is being loaded
            return ("" if status == 200 else f"it answers {status}"), False
        time.sleep(PAUSE_SECONDS)
    return f"it gave no token within {ANSWER_SECONDS:g} s", True


def engine_findings(found: Tried, settings: NodeSettings) -> Iterator[Finding]:
    """Judge the trial. Pure."""
    other = "native" if settings.engine == "bundled" else "bundled"
    another = f"edgeserve node start --engine {other}"
    if found.passed_over:
        said = f"{found.passed_over}; the bundled engine is used instead"
        yield problem("engine", "broken", said, "edgeserve engine build")
    if found.slow:
        said = f"{found.build} may be slow or hang: {found.why}"
        yield unknown("engine", said, "edgeserve node plan")
    elif found.why and found.build:
        yield problem("engine", "broken", f"{found.build}: {found.why}", another)
    elif found.why:
        yield problem("engine", "none", found.why, another)
    else:
        yield ok("engine", f"{found.build} answers")


@dataclass(frozen=True, kw_only=True)
class Cards:
    """GPUs of this machine, and those that the engine computes on."""

    seen: Sequence[Gpu]
    used: Sequence[str]
    silent_driver: bool = False
    closed: bool = False
    """Whether this user may not use AMD's device."""


def gpu(here: Here) -> Iterator[Finding]:
    """Check that the engine uses the GPUs that are there."""
    seen = gpus()
    yield gpu_finding(
        Cards(
            seen=seen,
            # Looking takes a second on a Pi, and tells nothing without a GPU.
            used=_used(here.node.settings) if seen else (),
            silent_driver=DRIVER.exists() and not seen,
            closed=ROCM.exists() and not os.access(ROCM, os.R_OK | os.W_OK),
        )
    )


def _used(settings: NodeSettings) -> Sequence[str]:
    try:
        return [each.name for each in devices_of(find_engine(settings))]
    except EngineUnavailable:
        return ()  # the check of the engine tells why


def gpu_finding(found: Cards) -> Finding:
    """Judge the GPUs. Pure."""
    names = ", ".join(each.name for each in found.seen)
    if found.silent_driver:
        said = "there is an NVIDIA GPU, and its driver does not answer"
        return problem("gpu", "driver", said, "nvidia-smi")
    if found.closed:
        said = f"this user may not use {ROCM}, the AMD GPU's device"
        return problem("gpu", "rights", said, "sudo usermod -aG render,video $USER")
    if found.used:
        return ok("gpu", f"the engine uses {', '.join(found.used)}")
    if not found.seen:
        return ok("gpu", "none here; models run on the processor")
    said = f"{names}: seen, but the engine computes on the processor only"
    return problem("gpu", "unused", said, "edgeserve engine build")
