"""Client database: opens, makes and changes the file `clients.db`.

Several processes share the file. Each change is one transaction that is on the disk
before it is acknowledged. A file in any other state than one that was written here is
refused as damaged, never taken for one without keys.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from edgeserve.runtime.files import Unusable, remove

VERSION = 1
"""Of the tables; a file of another version is refused."""

WAIT_SECONDS = 10.0
"""How long a change waits for another one, of whichever process."""

SCHEMA = """
CREATE TABLE keys (
    id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, admin INTEGER NOT NULL,
    models TEXT NOT NULL, requests_per_minute INTEGER NOT NULL,
    tokens_per_minute INTEGER NOT NULL, at_once INTEGER NOT NULL,
    priority INTEGER NOT NULL, created REAL NOT NULL, expires REAL, revoked REAL
) STRICT;
CREATE UNIQUE INDEX live ON keys (name) WHERE revoked IS NULL;
CREATE TABLE usage (
    key TEXT NOT NULL, model TEXT NOT NULL, day TEXT NOT NULL,
    requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL, answer_tokens INTEGER NOT NULL,
    PRIMARY KEY (day, key, model)
) STRICT, WITHOUT ROWID;
CREATE TABLE changes (count INTEGER NOT NULL) STRICT;
INSERT INTO changes VALUES (0);
"""


@contextmanager
def changing_keys(path: Path) -> Generator[sqlite3.Connection]:
    """Change keys in one transaction. Running balancers notice it by the file's time.

    Afterwards the content is moved into the file itself, so that a copy of that file
    alone has every key and every revocation.
    """
    with changing(path) as connection:
        yield connection
        connection.execute("UPDATE changes SET count = count + 1")
    with suppress(OSError, sqlite3.Error), closing(opened(path, 1.0)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    now = time.time_ns()  # the system's own time for a file is milliseconds coarse
    os.utime(path, ns=(now, now))


@contextmanager
def changing(path: Path) -> Generator[sqlite3.Connection]:
    """Change the file in one transaction, on the disk when the block has ended."""
    with faults_of(path):
        if not os.path.lexists(path):
            _create(path)
        with closing(opened(path, WAIT_SECONDS)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")


@contextmanager
def faults_of(path: Path) -> Generator[None]:
    """Turn the faults of SQLite into an OSError that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise Unusable(path, in_plain_words(error)) from error


def opened(path: Path, seconds: float) -> sqlite3.Connection:
    """Open the file, which has to be there and sound at its beginning.

    `seconds` is how long each statement waits for other processes. Raises OSError, and
    sqlite3.Error. On a full or read-only disk it can only be read.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise Unusable(path, "not a regular file")
    if not found.st_size:
        raise Unusable(path, "damaged: it is empty")
    try:
        return _connected(path, "mode=rw", seconds)
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_BUSY or not _is_whole(path):
            raise
        # Nothing can make the helper files that SQLite shares between processes.
        return _connected(path, "mode=ro&immutable=1", seconds)


def _is_whole(path: Path) -> bool:
    """Whether the file itself has every change; others would be in a file beside it."""
    try:
        return not path.with_name(path.name + "-wal").stat().st_size
    except FileNotFoundError:
        return True


def _connected(path: Path, how: str, seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?{how}",
        uri=True,
        timeout=seconds,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            raise Unusable(
                path,
                f"its tables have version {version}, not {VERSION}, or are damaged",
            )
        connection.execute("SELECT count FROM changes").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    """Make an empty store, which appears whole or not at all.

    Only its owner can read it. Where root makes it, it belongs to the folder's owner.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with closing(sqlite3.connect(part, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
                connection.executescript(SCHEMA)
                connection.execute(f"PRAGMA user_version = {VERSION}")
            if os.geteuid() == 0:
                folder = path.parent.stat()
                os.fchown(handle, folder.st_uid, folder.st_gid)
            os.fsync(handle)
        finally:
            os.close(handle)
        with suppress(FileExistsError):  # another process was quicker
            os.link(part, path)
        _sync(path.parent)
    finally:
        for end in ("", "-wal", "-shm"):
            remove(part.with_name(part.name + end))


def _sync(folder: Path) -> None:
    """Have the names in a folder on the disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def in_plain_words(error: sqlite3.Error) -> str:
    """Say what SQLite found; a fault of the content is damage."""
    if isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError):
        return str(error)
    return f"damaged: {error}"
