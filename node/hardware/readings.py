"""System readings: read files of /proc and /sys that may be missing or damaged.

Any of them may be missing, empty, forbidden or nonsense, and may become so at any time:
a driver is unloaded, a battery is taken out, descriptors run out. A missing file is
normal; any other fault is logged once. That this process has run out of descriptors
is no fact about the machine, and is raised: `measured` then keeps the earlier reading.
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

CPUINFO = Path("/proc/cpuinfo")

OURS = frozenset((errno.EMFILE, errno.ENFILE))
"""Errors of this process, not of the machine."""


def text(path: Path, *, for_root: bool = False) -> str:
    """Return a file's text, or "" where there is none.

    `for_root`: that only root may read it is normal, too.
    """
    return _read(path, for_root=for_root) or ""


def cpu_fields(source: Path = CPUINFO) -> dict[str, str]:
    """Return the fields of /proc/cpuinfo; of several processors, the first one's."""
    fields: dict[str, str] = {}
    for line in text(source).splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def number(path: Path) -> int | None:
    """Return the integer in a file, or None where there is none."""
    content = _read(path)
    if content is None:
        return None
    try:
        return int(content)
    except ValueError:
        warn_once(log, f"{path} holds no number: {content[:40]!r}")
        return None


def entries(folder: Path) -> list[Path]:
    """List a folder, sorted; a missing folder is empty."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        _warn(f"cannot list {folder}", error)
        return []


def _read(path: Path, *, for_root: bool = False) -> str | None:
    try:
        return path.read_bytes().decode(errors="replace").strip("\0 \t\r\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if not (for_root and isinstance(error, PermissionError)):
            _warn(f"cannot read {path}", error)
        return None


def _warn(what: str, error: OSError) -> None:
    if error.errno in OURS:
        raise error
    warn_once(log, f"{what}: {in_words(error)}")


def measured(what: str, read: Callable[[], T], otherwise: T) -> T:
    """Take one reading; return `otherwise` where that fails for any reason."""
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - psutil and drivers fail in many ways
        why = f"{type(error).__name__}: {in_words(error)}"
        warn_once(log, f"cannot measure the {what} of this machine: {why}")
        return otherwise
