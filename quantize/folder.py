"""Write into a folder alone, and give a file its name only when it is whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from edgeserve.errors import CommandError
from edgeserve.files import replacing
from quantize.naming import part_path


class FolderTaken(CommandError):
    """Another run is writing to the same names."""


@contextmanager
def part_of(target: Path) -> Generator[Path]:
    """Give a name to write to; it becomes `target` only if the block succeeds."""
    with replacing(target, part=part_path(target)) as part:
        yield part


@contextmanager
def alone_in(folder: Path) -> Generator[None]:
    """Hold the folder against other runs. Raises FolderTaken."""
    if sys.platform == "win32":
        yield  # folders cannot be locked there
        return
    import fcntl

    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(held)
        raise FolderTaken(f"another run is writing to {folder}; wait for it") from error
    try:
        yield
    finally:
        os.close(held)
