"""Crash records: which llama-server crashed while it loaded which model.

A crash is written down when the bundled engine has served the model instead. It counts
until the executable or the model is another one and, where layers were on a GPU, until
the machine starts again: a new driver often asks for that.
"""

from __future__ import annotations

import hashlib
import logging
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil

from edgeserve.errors import in_words
from edgeserve.runtime.files import in_a_name, read_json, replace_json
from node.engines.base import Engine, EngineSpec
from node.engines.native import Native
from node.hardware.readings import measured

log = logging.getLogger(__name__)


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Which executable, as the file system tells it, with which model in which role."""

    build: str
    path: str
    changed_ns: int
    size: int
    variant: str
    model_bytes: int
    role: str


class Crash(msgspec.Struct, frozen=True, kw_only=True):
    """What happened. `made` is in seconds since 1970; `on_gpu`: layers were there."""

    about: About
    why: str
    on_gpu: bool
    made: float

    @property
    def said(self) -> str:
        """Say it in a sentence, for the node's report."""
        day = datetime.fromtimestamp(self.made, UTC).date()
        why = self.why
        if why.startswith("killed by"):  # what it printed before is not to blame
            why = why.partition(":")[0]
        return (
            f"served by the bundled engine: {self.about.path} ({self.about.build})"
            f" crashed while it loaded this model on {day} ({why}); it is tried again"
            " when it has changed"
        )


def about(engine: Engine, spec: EngineSpec) -> About | None:
    """Name what a crash would be about; None for what has no executable of its own."""
    if not isinstance(engine, Native):
        return None
    try:
        program, model = engine.path.resolve().stat(), spec.path.stat()
    except OSError:
        return None
    return About(
        build=engine.build,
        path=str(engine.path),
        changed_ns=program.st_mtime_ns,
        size=program.st_size,
        variant=spec.variant,
        model_bytes=model.st_size,
        role=spec.role,
    )


def remember(state_dir: Path, what: About, why: str, *, on_gpu: bool) -> Crash:
    """Write a crash down; a disk that takes nothing costs another try at the start."""
    crash = Crash(about=what, why=why, on_gpu=on_gpu, made=time.time())
    target = _file(state_dir, what)
    try:
        replace_json(target, crash)
    except OSError as error:
        log.warning("cannot write %s: %s", target, in_words(error))
    return crash


def find(state_dir: Path, what: About | None) -> Crash | None:
    """Return the crash that is about this, if it still counts."""
    if what is None:
        return None
    path = _file(state_dir, what)
    try:
        crash = read_json(path, Crash)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("leaving out %s: %s; delete it", path, in_words(error))
        return None
    booted = measured("start", psutil.boot_time, 0.0)
    outdated = crash.on_gpu and crash.made < booted
    return None if crash.about != what or outdated else crash


def _file(state_dir: Path, what: About) -> Path:
    """One file for each executable and model, whatever has become of both."""
    names = f"{what.path}\n{what.variant}\n{what.role}"
    digest = hashlib.sha256(names.encode()).hexdigest()[:12]
    return state_dir / "crashes" / f"{in_a_name(what.variant)}-{digest}.json"
