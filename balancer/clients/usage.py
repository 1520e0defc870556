"""Client usage: count what each key uses, and write it to `clients.db` in batches.

Requests only add to counters in memory. A background task writes these in one
transaction, in a thread, some seconds later; what cannot be written is kept and tried
again. SIGKILL loses the batch of the last seconds, never what was written.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from balancer.clients.store import Spent, UsageCounts, add_usage, store_in, usage_since
from balancer.telemetry.records import TokensUsed
from edgeserve.errors import in_words
from edgeserve.runtime.background import background, declared
from edgeserve.runtime.files import RepeatedFault
from edgeserve.runtime.tasks import in_thread

log = logging.getLogger(__name__)

BATCH_SECONDS = 2.0

MOST_WAITING = 100_000
"""Most counters that are kept while the file cannot be written."""

USAGE = declared("usage")


DAY_SECONDS = 10.0
"""How often the day is looked up, which takes longer than all else here."""


class ClientUsage:
    """What keys have used, by key, model and day where the balancer is.

    `clock`: seconds since 1970.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._today, self._today_until = "", 0.0
        self._waiting: dict[Spent, UsageCounts] = {}
        self._lock = threading.Lock()
        self._trouble = RepeatedFault(log.warning)
        self.grew = asyncio.Event()

    def add(self, key: str, used: TokensUsed) -> None:
        """Count a request of a key that has ended."""
        counts = UsageCounts(1, used.prompt, used.cached, used.answer)
        spent = key, used.model, self._day()
        with self._lock:
            self._merge({spent: counts})
        self.grew.set()

    def _day(self) -> str:
        now = self._clock()
        if now >= self._today_until:
            self._today_until = now - now % DAY_SECONDS + DAY_SECONDS
            self._today = _date(now).isoformat()
        return self._today

    def _merge(self, more: Mapping[Spent, UsageCounts]) -> None:
        for spent, counts in more.items():
            if (found := self._waiting.get(spent)) is not None:
                found.add(counts)
            elif len(self._waiting) < MOST_WAITING:
                self._waiting[spent] = counts

    def write(self) -> bool:
        """Write what waits; return whether nothing was kept. May run in a thread."""
        with self._lock:
            batch, self._waiting = self._waiting, {}
        if not batch:
            return True
        try:
            add_usage(self._path, batch)
        except OSError as error:
            with self._lock:
                self._merge(batch)
            why = in_words(error)
            self._trouble.report(f"cannot write usage to {self._path}: {why}")
            return False
        self._trouble.ended()
        return True

    def since(self, days: int) -> dict[Spent, UsageCounts]:
        """Return what was used today and on the days before; may run in a thread."""
        first = (_date(self._clock()) - timedelta(days=days - 1)).isoformat()
        self.write()
        found = dict[Spent, UsageCounts]()
        with suppress(OSError):
            found.update(usage_since(self._path, first))
        with self._lock:
            for spent, counts in self._waiting.items():
                found.setdefault(spent, UsageCounts()).add(counts)
        return found


def _date(at: float) -> date:
    return datetime.fromtimestamp(at, UTC).astimezone().date()


@asynccontextmanager
async def counting(state_dir: Path) -> AsyncGenerator[ClientUsage]:
    """Count, and write for the length of the block; the last counts at its end."""
    usage = ClientUsage(store_in(state_dir))
    try:
        async with background() as tasks:
            tasks.start(USAGE, lambda: _write_regularly(usage))
            yield usage
    finally:
        await in_thread(usage.write)


async def _write_regularly(usage: ClientUsage) -> None:
    while True:
        await usage.grew.wait()
        await asyncio.sleep(BATCH_SECONDS)
        usage.grew.clear()
        if not await in_thread(usage.write):
            usage.grew.set()
