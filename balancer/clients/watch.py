"""Key sources: the keys of `clients.db` and of a file, read anew when they change.

Every request asks whether something has changed, which costs a few microseconds. What
cannot be read any more lets no client in: keys that were known are forgotten, and that
keys are needed is not.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

from balancer.clients.database import in_plain_words, opened
from balancer.clients.keys import LONGEST_NAME, RESERVED, ClientKey, key_id
from balancer.clients.store import keys_in
from edgeserve.config.paths import config_dir
from edgeserve.errors import SettingsError, in_words
from edgeserve.runtime.files import RepeatedFault, Unusable
from edgeserve.security.tokens import read_api_keys

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often a file is opened that cannot be used, and SQLite asked for what changed
without the commands of EdgeServe."""

WAIT_SECONDS = 0.2
"""How long reading keys waits at most: only while a crash is being repaired."""

BUSY = frozenset((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED))

Seen = tuple[int, int, int, int] | None
"""Device, inode, time of change and size of a file; None where there is none."""

Keys = Mapping[str, ClientKey]
"""Keys by id."""


class StoredKeys:
    """The keys of `clients.db`. `problem` says why they cannot be read, if so."""

    def __init__(self, path: Path) -> None:
        self._path, self._name = path, str(path)
        self._connection: sqlite3.Connection | None = None
        self._count = -1
        self._seen: Seen = None
        self._next_look = 0.0
        self._trouble = RepeatedFault(log.error)
        self.keys: Keys = {}
        self.problem = ""
        self._look(time.monotonic())

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def changed(self) -> bool:
        """Read the keys anew if they have changed; return whether anything has."""
        if self._connection is None:
            missing = not self.problem and not os.access(self._name, os.F_OK)
            return False if missing else self._look(time.monotonic())
        seen, now = _seen_at(self._name), time.monotonic()
        if seen is not None and seen != self._seen:
            return self._open(seen, now)  # one that is deleted goes on to count
        return now >= self._next_look and self._ask(now)

    def _ask(self, now: float) -> bool:
        """Ask SQLite itself, for a change that did not show in the file's time."""
        self._next_look = now + LOOK_SECONDS
        try:
            return self._read()
        except (OSError, sqlite3.Error) as error:
            return self._failed(error, now)

    def _look(self, now: float) -> bool:
        """Open the file if it is there; one that failed is tried again in a while."""
        seen = _seen_at(self._name)
        if seen is None:
            had, self.problem, self._seen = self.problem, "", None
            return bool(had)
        if self.problem and seen == self._seen and now < self._next_look:
            return False
        return self._open(seen, now)

    def _open(self, seen: Seen, now: float) -> bool:
        self.close()
        same = (
            seen is not None and self._seen is not None and seen[:2] == self._seen[:2]
        )
        self._seen, self._next_look = seen, now + LOOK_SECONDS
        self._count = -1
        try:
            self._connection = opened(self._path, WAIT_SECONDS)
            if not same or self.problem:
                _check(self._path, self._connection)
            return self._read()
        except (OSError, sqlite3.Error) as error:
            return self._failed(error, now)

    def _read(self) -> bool:
        """Read the keys, unless only usage has changed."""
        if self._connection is None:
            return False
        (count,) = self._connection.execute("SELECT count FROM changes").fetchone()
        if count == self._count:
            return False
        self.keys = {key.id: key for key in keys_in(self._connection)}
        self._count, self.problem = count, ""
        self._trouble.ended()
        return True

    def _failed(self, error: OSError | sqlite3.Error, now: float) -> bool:
        """Forget all keys, except while another process only holds the file."""
        code = getattr(error, "sqlite_errorcode", None)
        if code in BUSY and self._connection is not None and self._count >= 0:
            return False
        self.close()
        self._next_look = now + LOOK_SECONDS
        if isinstance(error, sqlite3.Error):
            error = Unusable(self._path, in_plain_words(error))
        self.keys, self.problem = {}, in_words(error)
        self._trouble.report(
            f"no client is let in with a key of {self._path}: {self.problem}; move it"
            " away, or put a sound copy there"
        )
        return True


def _check(path: Path, connection: sqlite3.Connection) -> None:
    """Read the whole file once. Raises Unusable where it is damaged."""
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise Unusable(path, f"damaged: {found}")


def _seen_at(name: str) -> Seen:
    """Look at a file; a link that leads nowhere counts as a file."""
    try:
        found = os.stat(name)  # noqa: PTH116 - twice as fast, and for each request
    except FileNotFoundError:
        return (0, 0, 0, 0) if os.path.islink(name) else None  # noqa: PTH114 - as above
    except OSError:
        return (0, 0, 0, 0)
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


class FileKeys:
    """The keys in a plain file, one a line, named by the comment above each.

    They have no limits, and all are admins. `problem`: as of `StoredKeys`.
    """

    def __init__(self, path: Path | None) -> None:
        """Read it, by default from its usual place. Raises SettingsError."""
        self._named = path
        self._name = str(path or config_dir() / "api-keys")
        self._seen = _seen_at(self._name)
        self._trouble = RepeatedFault(log.error)
        self.keys: Keys = self._read()
        self.problem = ""

    def changed(self) -> bool:
        """Read the file anew if it has changed; return whether it has."""
        if self._seen is None and not os.access(self._name, os.F_OK):
            return False
        seen = _seen_at(self._name)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.keys, self.problem = self._read(), ""
            self._trouble.ended()
        except SettingsError as error:
            self.keys, self.problem = {}, str(error)
            self._trouble.report(
                f"no client is let in with a key of that file: {error}"
            )
        return True

    def _read(self) -> Keys:
        found = dict[str, ClientKey]()
        for secret in read_api_keys(self._named):
            id_, name = key_id(secret.value), secret.comment[:LONGEST_NAME]
            if not name or name in RESERVED:
                name = default_name(id_)
            found[id_] = ClientKey(id=id_, name=name, admin=True)
        return found


def default_name(id_: str) -> str:
    """Return the name of a key that was given none."""
    return f"key-{id_[:6]}"
