"""Load times: how many seconds each model's last load took, kept over restarts."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import msgspec

from edgeserve.errors import in_words
from edgeserve.runtime.files import RepeatedFault, read_json, replace_json
from node.planning.planner import PlannedEngine
from node.supervision.loading import estimate

log = logging.getLogger(__name__)

MOST = 256
"""Loads that are kept, the latest."""

NEWS = 0.1
"""A load time that differs by less than this share is not written again."""


class LoadTimesFile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file: seconds by engine, size and time of the model's file."""

    seconds: dict[str, float]


class LoadTimes:
    """The measured loads of this machine. Damage costs estimates, nothing else."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "loads.json"
        self._seconds = dict(_load(self._path).seconds)
        self._faults = RepeatedFault(partial(log.warning, "%s"))

    def seconds(self, planned: PlannedEngine) -> float:
        """Return how long a load takes: as long as the last one, else an estimate."""
        known = self._seconds.get(_key(planned))
        return estimate(planned.load.total) if known is None else known

    def measured(self, planned: PlannedEngine) -> bool:
        """Whether it has been loaded here."""
        return _key(planned) in self._seconds

    def take(self, planned: PlannedEngine, seconds: float) -> bool:
        """Take in a load; returns whether that is worth writing."""
        key = _key(planned)
        known = self._seconds.pop(key, 0.0)
        self._seconds[key] = round(seconds, 3)
        while len(self._seconds) > MOST:
            self._seconds.pop(next(iter(self._seconds)))
        return abs(seconds - known) > NEWS * known

    def save(self) -> None:
        """Write the file."""
        try:
            replace_json(self._path, LoadTimesFile(seconds=dict(self._seconds)))
        except OSError as error:
            self._faults.report(f"cannot write {self._path}: {in_words(error)}")


def _key(planned: PlannedEngine) -> str:
    return f"{planned.spec.id} {planned.load.total} {planned.spec.created}"


def _load(path: Path) -> LoadTimesFile:
    try:
        return read_json(path, LoadTimesFile)
    except FileNotFoundError:
        return LoadTimesFile(seconds={})
    except OSError as error:
        log.warning("ignoring %s: %s; loads are measured anew", path, in_words(error))
        return LoadTimesFile(seconds={})
