"""Crash records: which llama-server crashed while it loaded which model.

A crash is recorded after the bundled engine has served the model instead. It counts
until the executable or the model changes and, where layers were on a GPU, until the
machine restarts: a new driver often needs a restart.
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
    """Key of a record: the executable, by its file's properties, the model and role."""

    build: str
    path: str
    changed_ns: int
    size: int
    variant: str
    model_bytes: int
    role: str


class Crash(msgspec.Struct, frozen=True, kw_only=True):
    """One crash. `made` is in seconds since 1970; `on_gpu`: layers were on a GPU."""

    about: About
    why: str
    on_gpu: bool
    made: float

    @property
    def sentence(self) -> str:
        """The crash in a sentence, for the node's report."""
        day = datetime.fromtimestamp(self.made, UTC).date()
        why = self.why
        if why.startswith("killed by"):  # earlier output is not the cause
            why = why.partition(":")[0]
        return (
            f"served by the bundled engine: {self.about.path} ({self.about.build})"
            f" crashed while it loaded this model on {day} ({why}); it is tried again"
            " after it has changed"
        )


def about(engine: Engine, spec: EngineSpec) -> About | None:
    """Return the key of an engine and model; None for the bundled engine."""
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


def record(state_dir: Path, key: About, why: str, *, on_gpu: bool) -> Crash:
    """Record a crash. If the disk is full, the next start tries llama-server again."""
    crash = Crash(about=key, why=why, on_gpu=on_gpu, made=time.time())
    target = _file(state_dir, key)
    try:
        replace_json(target, crash)
    except OSError as error:
        log.warning("cannot write %s: %s", target, in_words(error))
    return crash


def find(state_dir: Path, key: About | None) -> Crash | None:
    """Return the crash with this key, if it still counts."""
    if key is None:
        return None
    path = _file(state_dir, key)
    try:
        crash = read_json(path, Crash)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("ignoring %s: %s; delete it", path, in_words(error))
        return None
    booted = measured("start", psutil.boot_time, 0.0)
    outdated = crash.on_gpu and crash.made < booted
    return None if crash.about != key or outdated else crash


def _file(state_dir: Path, key: About) -> Path:
    """Return the one file of an executable and model, in any version of them."""
    names = f"{key.path}\n{key.variant}\n{key.role}"
    digest = hashlib.sha256(names.encode()).hexdigest()[:12]
    return state_dir / "crashes" / f"{in_a_name(key.variant)}-{digest}.json"
