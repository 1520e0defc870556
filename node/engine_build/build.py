"""Engine build: configure and compile llama-server, beside older builds.

A build is installed only after it has generated tokens. A failure leaves the build in
use unchanged, and a log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, NoReturn

import msgspec
import psutil

from edgeserve.errors import EngineUnavailable
from edgeserve.runtime.files import workshop
from edgeserve.runtime.tether import tethered
from node.engine_build.backends import (
    TARGETS,
    Backend,
    Toolchain,
    configure_flags,
    jobs_for,
    lacking,
    pick,
    too_small,
    try_amx,
)
from node.engine_build.smoke import NotWorking, Smoke, smoke
from node.engine_build.source import Show, Source, source
from node.engine_build.toolchain import nvcc
from node.engines.builds import MANIFEST, Build, engines_dir, free_name, use
from node.engines.bundled import narrow
from node.hardware.limits import cpus, memory_room

log = logging.getLogger(__name__)

ROOM = 3 * 2**30
"""Free disk needed: source, objects and tools; 0.6 GB for cpu, more for cuda."""

LOG = "build.log"
"""Beside the builds while one runs or after it has failed, then in its folder."""

PERCENT = re.compile(rb"\[ *(\d+)%\]")
STEPS = re.compile(rb"\[(\d+)/(\d+)\]")
TROUBLE = re.compile(r"error|fatal|not found|No space", re.IGNORECASE)


class CannotBuild(EngineUnavailable):
    """The build failed or cannot start; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What to build, and where. `jobs` 0 picks; `source` None downloads.

    `architectures` are those of GPUs that need not be here, as for cmake.
    """

    state_dir: Path
    backend: Backend | None = None
    jobs: int = 0
    source: Path | None = None
    architectures: str = ""


def build(options: BuildOptions, found: Toolchain, show: Show) -> Build:
    """Build, test, install and use a build. Raises EngineUnavailable."""
    backend = options.backend or pick(found)
    if why := narrow() or lacking(backend, found) or too_small(_memory()):
        raise CannotBuild(why)
    began = time.monotonic()
    folder = engines_dir(options.state_dir)
    with workshop(folder, "building", partial(_refuse_second, folder)) as work:
        _refuse_full_disk(folder)
        code = source(options.source, work, show)
        jobs = options.jobs or jobs_for(cpus(), _free_memory())
        used = replace(options, jobs=jobs)
        flags, tools, tried = _working(code, backend, found, used, work, show)
        made = Build(
            name=free_name(options.state_dir, code.commit, backend),
            backend=backend,
            commit=code.commit,
            version=tried.version,
            flags=flags,
            compiler=found.compiler,
            devices=tried.devices,
            machine=f"{platform.node()}, {platform.system()} {platform.machine()}",
            source=code.origin,
            jobs=jobs,
            seconds=round(time.monotonic() - began, 1),
            made=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        _install(made, tools, folder)
    use(options.state_dir, made.name)
    return made


def _working(
    code: Source,
    backend: Backend,
    found: Toolchain,
    options: BuildOptions,
    work: Path,
    show: Show,
) -> tuple[tuple[str, ...], Path, Smoke]:
    """Compile and test; without AMX if the build does not work with it.

    Returns the flags, the folder of the tools and the result of the test.
    """

    def tried(amx: bool) -> tuple[tuple[str, ...], Path, Smoke]:
        gpus = options.architectures
        flags = configure_flags(
            backend, found, code.commit, amx=amx, architectures=gpus
        )
        tools = _compiled(code, flags, options.jobs, work, show)
        show("testing", 0, 1)
        # Where GPUs are named, this machine may have none: tested on the processor.
        result = smoke(tools / TARGETS[0], "cpu" if gpus else backend, work)
        show("testing", 1, 1)
        return flags, tools, result

    if try_amx(found) and not options.architectures:
        try:
            return tried(amx=True)
        except NotWorking as error:
            log.warning("%s; building without AMX", error)
    return tried(amx=False)


def _compiled(
    code: Source, flags: tuple[str, ...], jobs: int, work: Path, show: Show
) -> Path:
    """Configure and compile; return the folder of the tools, after a check."""
    out = work / "build"
    configure = ["cmake", "-S", str(code.folder), "-B", str(out), *flags]
    compile_ = ["cmake", "--build", str(out), "--parallel", str(jobs), "--target"]
    with (work.parent / LOG).open("wb") as log_file:
        show("configuring", 0, 1)
        _run(configure, log_file, lambda _line: None)
        show("configuring", 1, 1)
        _run([*compile_, *TARGETS], log_file, lambda line: _show_progress(line, show))
        show("compiling", 100, 100)
    missing = [name for name in TARGETS if not (out / "bin" / name).exists()]
    if missing:
        raise CannotBuild(
            f"the build made no {', '.join(missing)}; see {log_file.name}"
        )
    return out / "bin"


def _show_progress(line: bytes, show: Show) -> None:
    if found := PERCENT.search(line):
        show("compiling", int(found[1]), 100)
    elif found := STEPS.search(line):
        show("compiling", int(found[1]), int(found[2]))


def _run(
    command: list[str], log_file: BinaryIO, observe: Callable[[bytes], None]
) -> None:
    """Run a command, its output into the log. Raises CannotBuild."""
    log_file.write(f"$ {' '.join(command)}\n".encode())
    last = list[str]()
    with _running(command) as running:
        assert running.stdout is not None  # noqa: S101 - what PIPE means
        for line in running.stdout:
            log_file.write(line)
            log_file.flush()
            observe(line)
            last = [*last[-400:], line.decode(errors="replace").strip()]
    if running.returncode != 0:
        trouble = [line for line in last if TROUBLE.search(line)] or last
        raise CannotBuild(
            f"{' '.join(command[:2])} failed: {'; '.join(trouble[:3])} (log:"
            f" {log_file.name})"
        )


@contextlib.contextmanager
def _running(command: list[str]) -> Generator[subprocess.Popen[bytes]]:
    """Run in its own process group: leaving the block ends the compilers, too."""
    environment = dict(os.environ)
    if compiler_ := nvcc():
        environment.setdefault("CUDACXX", compiler_)
    running = subprocess.Popen(
        tethered(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=environment,
    )
    try:
        yield running
        running.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate()


def _refuse_second(folder: Path) -> NoReturn:
    raise CannotBuild(f"another build is running in {folder}")


def _install(made: Build, tools: Path, folder: Path) -> None:
    """Install the build by one rename: a folder with its name is always whole."""
    staged = tools.parent / "staged"
    staged.mkdir()
    for name in TARGETS:
        shutil.move(tools / name, staged / name)
    shutil.move(folder / LOG, staged / LOG)
    manifest = msgspec.json.format(msgspec.json.encode(made))
    (staged / MANIFEST).write_bytes(manifest + b"\n")
    staged.replace(folder / made.name)


def _memory() -> int:
    whole: int = psutil.virtual_memory().total
    room, swap = memory_room(), psutil.swap_memory().total
    return (min(whole, room[0]) if room else whole) + int(swap)


def _free_memory() -> int:
    room = memory_room()
    free: int = psutil.virtual_memory().available
    return min(free, room[1]) if room else free


def _refuse_full_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        raise CannotBuild(
            f"building needs {ROOM / 2**30:g} GiB in {folder}, which has"
            f" {free / 2**30:.1f} GiB free; choose another with EDGESERVE_STATE_DIR"
        )
