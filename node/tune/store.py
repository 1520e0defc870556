"""Where results of tuning are kept: one small file each in the state folder."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import msgspec

from edgeserve.config import NodeSettings
from edgeserve.errors import in_words
from edgeserve.files import in_a_name, read_json, replace_json
from edgeserve.wire import Hardware
from node.engines.protocol import Engine
from node.offload import Device
from node.tune.result import Key, Result, Tunings, fingerprint

log = logging.getLogger(__name__)


def load(state_dir: Path, *, machine: str, engine: str) -> Tunings:
    """Return every result for this machine and engine. What cannot be read is left."""
    found: dict[Key, Result] = {}
    for file in sorted(_folder(state_dir).glob("*.json")):
        try:
            result = read_json(file, Result)
        except OSError as error:
            log.warning("leaving out %s: %s; delete it", file, in_words(error))
            continue
        if (result.key.machine, result.key.engine) == (machine, engine):
            found[result.key] = result
    return Tunings(machine, engine, found)


def tunings_of(
    engine: Engine,
    hardware: Hardware,
    devices: tuple[Device, ...],
    settings: NodeSettings,
) -> Tunings:
    """Return what was tuned on this machine with this engine."""
    machine = fingerprint(hardware, devices, apart=settings.per_gpu)
    name = f"{engine.kind} {engine.build}"
    return load(settings.state_dir, machine=machine, engine=name)


def save(state_dir: Path, result: Result) -> Path:
    """Write a result, or replace the one for the same key. Nobody sees half a file.

    Raises OSError.
    """
    target = _folder(state_dir) / f"{_name(result.key)}.json"
    replace_json(target, result)
    return target


def _folder(state_dir: Path) -> Path:
    return state_dir / "tuned"


def _name(key: Key) -> str:
    digest = hashlib.sha256(msgspec.json.encode(key)).hexdigest()[:12]
    return f"{in_a_name(key.variant)}-{key.role}-{digest}"
