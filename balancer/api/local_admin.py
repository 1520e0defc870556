"""Local admin: a key in the state folder, for commands of the same account."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from edgeserve.errors import in_words
from edgeserve.runtime.files import read_text, remove, replace_file
from edgeserve.security.tokens import Guard, new_secret

log = logging.getLogger(__name__)

OWNER_ONLY = 0o600
LENGTH = len(new_secret("admin"))


@contextmanager
def local_admin(
    path: Path, *, inherits: bool, ours: Callable[[], bool]
) -> Generator[Guard]:
    """Leave a new admin key in a file; yields what accepts requests that carry it.

    A process that takes over keeps the key of the other one, which may still answer.
    `ours`: whether this process may still remove the file.
    """
    secret = (_left_in(path) if inherits else None) or new_secret("admin")
    try:
        replace_file(path, f"{secret}\n".encode(), mode=OWNER_ONLY)
    except OSError as error:
        log.warning(
            "commands cannot manage this balancer: cannot write %s: %s",
            *(path, in_words(error)),
        )
    try:
        yield Guard((secret,), "admin key")
    finally:
        if ours():
            remove(path)


def _left_in(path: Path) -> str | None:
    try:
        found = read_text(path).strip()
    except OSError:
        return None
    return found if found.startswith("admin-") and len(found) == LENGTH else None
