"""System readings: read what the system's files say, without harm if they are damaged.

Any of them may be missing, empty, forbidden or nonsense, and may become so while we
run: a driver is unloaded, a battery taken out, descriptors have run out. What is
missing is nothing unusual; all else that is wrong is logged once, and the rest goes on.
That this process has run out of descriptors says nothing of the machine, and is raised:
`measured` then stays with what was read before.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edgeserve.errors import in_words
from edgeserve.runtime.log import warn_once

log = logging.getLogger(__name__)

T = TypeVar("T")

OURS = frozenset((errno.EMFILE, errno.ENFILE))
"""Errors that are this process's own fault."""


def text(path: Path) -> str:
    """Return what a file says, or "" where it says nothing."""
    return _read(path) or ""


def number(path: Path) -> int | None:
    """Return the integer in a file, or None where there is none."""
    said = _read(path)
    if said is None:
        return None
    try:
        return int(said)
    except ValueError:
        warn_once(log, f"{path} has no number in it: {said[:40]!r}")
        return None


def entries(folder: Path) -> list[Path]:
    """List a folder, sorted; nothing where there is none."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        _tell(f"cannot list {folder}", error)
        return []


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode(errors="replace").strip("\0 \t\r\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _tell(f"cannot read {path}", error)
        return None


def _tell(what: str, error: OSError) -> None:
    if error.errno in OURS:
        raise error
    warn_once(log, f"{what}: {in_words(error)}")


def measured(what: str, read: Callable[[], T], otherwise: T) -> T:
    """Take one reading; `otherwise` where that fails, however it does."""
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - psutil and drivers fail in many ways
        said = f"{type(error).__name__}: {in_words(error)}"
        warn_once(log, f"cannot measure the {what} of this machine: {said}")
        return otherwise
