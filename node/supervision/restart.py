"""Restart policy: the delay before each restart, and when to stop restarting."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from edgeserve.config.settings import NodeSettings
from edgeserve.runtime.files import stamp

FIRST, LONGEST = 1.0, 30.0
"""Seconds between restarts: 1, 2, 4, … at most 30."""

WINDOW = 300.0
LIMIT = 4
"""An engine that fails this often within the window, in seconds, is quarantined."""

SOUND_SECONDS = 60.0
"""After being ready for this long, an engine's earlier failures no longer count."""


@dataclass(frozen=True)
class RestartBackoff:
    """The failures since the engine was last sound, as clock readings."""

    times: tuple[float, ...] = ()

    def after(self, now: float, *, ready_seconds: float) -> RestartBackoff:
        """Add a failure of an engine that had been ready for `ready_seconds`."""
        earlier = () if ready_seconds >= SOUND_SECONDS else self.times
        return RestartBackoff((*(t for t in earlier if now - t < WINDOW), now))

    @property
    def delay(self) -> float:
        """Seconds to wait before the next start."""
        return min(FIRST * 2.0 ** (len(self.times) - 1), LONGEST)

    @property
    def hopeless(self) -> bool:
        """Whether another start is useless until something changes."""
        return len(self.times) >= LIMIT


def quarantined(settings: NodeSettings, reason: str) -> str:
    """Return the sentence for an engine that is not started again."""
    hint = "replace the file or restart the node"
    if settings.llama_server or settings.engine == "native":
        hint += "; without `engine` and `llama_server`, it tries the bundled engine"
    return f"failed {LIMIT} times in a row; {hint}; {reason}"


async def replaced(path: Path, every: float) -> None:
    """Wait until the file changes, appears or disappears; check every `every` seconds.

    Only that can help a model that cannot be served.
    """
    before = stamp(path)
    while stamp(path) == before:  # noqa: ASYNC110 - a file has no event
        await asyncio.sleep(every)
