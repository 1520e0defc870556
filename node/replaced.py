"""Wait until a file is another one."""

from __future__ import annotations

import asyncio
from pathlib import Path


async def replaced(path: Path, every: float) -> None:
    """Wait until the file is written again, gone or back; looks every so many seconds.

    For a model that cannot be served, the one reason to hope again.
    """
    before = _stamp(path)
    while _stamp(path) == before:  # noqa: ASYNC110 - a file has no event
        await asyncio.sleep(every)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
