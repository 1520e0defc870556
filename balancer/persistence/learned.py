"""Learned speeds on disk: load and save `learned.json`.

The file is written beside and renamed, so that a crash leaves the old one. A file that
cannot be read is ignored: everything in it is learned again within minutes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from balancer.prediction.regression import DecayingQuantile, DecayingRatio
from balancer.prediction.servers.knowledge import Known
from balancer.routing.predictive import PredictivePolicy
from edgeserve.errors import in_words
from edgeserve.runtime.background import background, declared
from edgeserve.runtime.files import RepeatedFault, read_bytes, replace_file
from edgeserve.runtime.tasks import in_thread
from edgeserve.wire import MALFORMED

log = logging.getLogger(__name__)

EVERY_SECONDS = 30.0

MEMORY = declared("memory")


class _Model(msgspec.Struct):
    """Tokens per byte of a model's prompts, and the length of its answers."""

    prompts: DecayingRatio
    answers: DecayingQuantile


class _Learned(msgspec.Struct):
    speeds: msgspec.Raw
    models: dict[str, _Model]
    servers: dict[str, Known] = {}
    energy: dict[str, tuple[float, float]] = {}


def learned(predict: PredictivePolicy) -> bytes:
    """Return everything worth keeping, as JSON."""
    models = {
        name: _Model(each.ratio, each.answers)
        for name, each in predict.dispatcher.workloads.items()
    }
    speeds = msgspec.Raw(predict.fleet_model.speeds.dump())
    servers = dict(predict.fleet_model.servers.dump())
    energy = predict.energy.dump()
    return msgspec.json.encode(_Learned(speeds, models, servers, energy))


def restore(predict: PredictivePolicy, body: bytes) -> None:
    """Restore what `learned` returned; best before any engine has joined.

    Raises msgspec.DecodeError for other data.
    """
    found = msgspec.json.decode(body, type=_Learned)
    predict.fleet_model.speeds.load(bytes(found.speeds))
    predict.fleet_model.servers.load(found.servers)
    predict.energy.load(found.energy)
    for name, each in found.models.items():
        workload = predict.dispatcher.workload(name)
        workload.ratio, workload.answers = each.prompts, each.answers


def file_in(state_dir: Path) -> Path:
    """Return the path of the file in that state folder."""
    return state_dir / "learned.json"


@asynccontextmanager
async def remembering(
    predict: PredictivePolicy, path: Path, taken: asyncio.Event
) -> AsyncGenerator[None]:
    """Load the file, and keep it up to date for the length of the block.

    Once `taken` is set, another process writes the file.
    """
    _load(predict, path)
    try:
        async with background() as tasks:
            tasks.start(MEMORY, lambda: _save_regularly(predict, path, taken))
            yield
    finally:
        if not taken.is_set():
            _save(path, learned(predict), RepeatedFault(log.warning))


def _load(predict: PredictivePolicy, path: Path) -> None:
    try:
        restore(predict, read_bytes(path))
    except FileNotFoundError:
        return
    except (OSError, *MALFORMED) as error:
        log.warning("%s cannot be used and will be replaced: %s", path, in_words(error))


async def _save_regularly(
    predict: PredictivePolicy, path: Path, taken: asyncio.Event
) -> None:
    saved = b""
    fault = RepeatedFault(log.warning)
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        if not taken.is_set() and (now := learned(predict)) != saved:
            await in_thread(_save, path, now, fault)
            saved = now


def _save(path: Path, body: bytes, fault: RepeatedFault) -> None:
    try:
        replace_file(path, body)
    except OSError as error:
        fault.report(f"cannot write what was learned to {path}: {in_words(error)}")
    else:
        fault.ended()
