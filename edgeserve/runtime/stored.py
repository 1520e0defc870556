"""Stored state: what is changed while a process runs, and kept for the next one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec

from edgeserve.errors import EdgeserveError, in_words
from edgeserve.runtime.files import replace_json
from edgeserve.runtime.tasks import in_thread


class NotStored(EdgeserveError):
    """The change counts, but only until this process ends."""

    status = 507
    code = "not_stored"
    kind = "server_error"


async def store(path: Path, value: msgspec.Struct, *, mode: int = 0o666) -> None:
    """Write a value; it outlives a power cut once this returns. Raises NotStored."""
    try:
        await in_thread(partial(replace_json, path, value, mode=mode))
    except OSError as error:
        raise NotStored(
            f"this counts until the balancer ends: cannot write {path}:"
            f" {in_words(error)}"
        ) from error
