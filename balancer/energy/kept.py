"""Kept sleepers: what a balancer remembers of machines that sleep, over restarts.

Nothing else knows their models and their cards. Damage costs what was kept, never the
service: they are known again once a person has switched them on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from balancer.discovery.hints import Source
from edgeserve.errors import in_words
from edgeserve.http.types import Origin
from edgeserve.runtime.files import RepeatedFault, read_json
from edgeserve.runtime.stored import NotStored, store
from edgeserve.wire import NodeReport

log = logging.getLogger(__name__)

FILE = "asleep.json"


class Sleeper(msgspec.Struct, frozen=True, kw_only=True):
    """A node whose machine sleeps: where it was seen, and its last report there.

    `ours`: this balancer sent it to sleep, and so wakes it first.
    """

    key: str
    source: Source
    origins: tuple[Origin, ...]
    origin: Origin
    report: NodeReport
    ours: bool = False


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file; `boots`: the seconds that each machine takes, by id."""

    asleep: tuple[Sleeper, ...] = ()
    boots: dict[str, float] = {}


class KeptSleepers:
    """The file. What cannot be written is written later."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._writing = asyncio.Lock()
        self._fault = RepeatedFault(log.warning)
        self.last = self._read()

    def _read(self) -> Kept:
        try:
            return read_json(self._path, Kept)
        except FileNotFoundError:
            return Kept()
        except OSError as error:
            log.warning(
                "cannot read which machines sleep: %s: %s; they are known again once"
                " they are awake",
                self._path,
                in_words(error),
            )
            return Kept()

    async def keep(self, latest: Callable[[], Kept]) -> None:
        """Write what has changed."""
        async with self._writing:
            if (now := latest()) == self.last:
                return
            try:
                await store(self._path, now)
            except NotStored as error:
                self._fault.report(str(error))
            else:
                self._fault.ended()
            self.last = now
