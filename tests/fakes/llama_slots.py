"""The fake's slots: first come first served, each keeping its last prompt's prefix."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

SIMILARITY = 0.10
"""llama.cpp's default `--slot-prompt-similarity`."""


@dataclass
class Slot:
    """One sequence. `cache` is what its KV cache holds, as tokens."""

    id: int
    cache: list[str] = field(default_factory=list[str])
    used: int = 0
    busy: bool = False


@dataclass
class Slots:
    """llama.cpp's choice of a slot, and its endless queue when there is none.

    `notice`: seconds until a slot comes free whose client has left.
    """

    total: int
    notice: Callable[[], float] = lambda: 0.0
    queue: deque[asyncio.Future[None]] = field(
        default_factory=deque[asyncio.Future[None]]
    )
    uses: int = 0

    def __post_init__(self) -> None:
        self.all = [Slot(number) for number in range(self.total)]

    @property
    def busy(self) -> int:
        """How many decode now."""
        return sum(slot.busy for slot in self.all)

    @asynccontextmanager
    async def take(self, prompt: Sequence[str]) -> AsyncGenerator[tuple[Slot, int]]:
        """Hold a slot; yields it and how many prompt tokens it need not read again."""
        await self._turn()
        slot = pick([slot for slot in self.all if not slot.busy], prompt)
        self.uses += 1
        slot.busy, slot.used = True, self.uses
        cached = common(slot.cache, prompt)
        slot.cache = slot.cache[:cached]
        late = 0.0
        try:
            # Even a wholly cached prompt has its last token evaluated again.
            yield slot, min(cached, len(prompt) - 1)
        except (asyncio.CancelledError, ConnectionError, GeneratorExit):
            late = self.notice()
            raise
        finally:
            if late:
                asyncio.get_running_loop().call_later(late, self._free, slot)
            else:
                self._free(slot)

    def _free(self, slot: Slot) -> None:
        slot.busy = False
        self._wake()

    async def _turn(self) -> None:
        if self.busy < self.total and not self.queue:
            return
        ticket = asyncio.get_running_loop().create_future()
        self.queue.append(ticket)
        try:
            await ticket
        except asyncio.CancelledError:
            if ticket in self.queue:
                self.queue.remove(ticket)
            else:
                self._wake()
            raise

    def _wake(self) -> None:
        if self.queue and self.busy < self.total:
            ticket = self.queue.popleft()
            if ticket.cancelled():
                self._wake()
            else:
                ticket.set_result(None)


def pick(idle: Sequence[Slot], prompt: Sequence[str]) -> Slot:
    """Prefer the slot that shares a tenth or more of the prompt, else the oldest."""
    similar = max(idle, key=lambda slot: (common(slot.cache, prompt), -slot.used))
    if prompt and common(similar.cache, prompt) / len(prompt) > SIMILARITY:
        return similar
    return min(idle, key=lambda slot: slot.used)


def common(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common prefix."""
    length = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        length += 1
    return length
