"""A folder's one place for what is unfinished, which one process holds at a time."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from edgeserve.files import open_lock


@contextmanager
def workshop(folder: Path, name: str, taken: Callable[[], None]) -> Generator[Path]:
    """Hold `folder/.name`, empty at start and end, for the length of the block.

    Where another process holds it, `taken` is called: it raises, or else we wait. The
    lock ends with its holder, however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / f".{name}"
    with open_lock(folder / f".{name}.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            taken()
            fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
