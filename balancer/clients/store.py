"""Client store: keys and usage in `clients.db`, written by commands and balancers.

Several processes share the file. Each change is one transaction that is on the disk
before it is acknowledged. A file in any other state than one that was written here is
refused as damaged, never taken for one without keys.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import quote

from balancer.clients.keys import ClientKey
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

COLUMNS = tuple(each.name for each in fields(ClientKey))
CHANGEABLE = frozenset(COLUMNS) - {"id", "name", "created", "revoked"}


@dataclass(slots=True)
class UsageCounts:
    """Requests and tokens; `cached` are those of `prompt` that were not read again."""

    requests: int = 0
    prompt: int = 0
    cached: int = 0
    answer: int = 0

    def add(self, other: UsageCounts) -> None:
        """Add another one to this one."""
        self.requests += other.requests
        self.prompt += other.prompt
        self.cached += other.cached
        self.answer += other.answer


Spent = tuple[str, str, str]
"""The name of a key, a model, and a day as `2026-11-28`."""


class NoSuchKey(LookupError):
    """No key has that name, or it is revoked."""


class NameTaken(ValueError):
    """A key that counts has that name."""


def store_in(state_dir: Path) -> Path:
    """Return the path of the file in that state folder."""
    return state_dir / "clients.db"


# What commands do


def add_key(path: Path, key: ClientKey) -> None:
    """Add a key. Raises NameTaken, and OSError where the file cannot be written."""
    marks = ", ".join("?" * len(COLUMNS))
    with _changing_keys(path) as connection:
        try:
            connection.execute(f"INSERT INTO keys VALUES ({marks})", _row(key))  # noqa: S608 - question marks
        except sqlite3.IntegrityError as error:
            raise NameTaken(key.name) from error


def revoke_key(path: Path, name: str, now: float) -> None:
    """End a key for good. Raises NoSuchKey, and OSError."""
    _update(path, name, {"revoked": now})


def change_key(path: Path, name: str, changes: Mapping[str, object]) -> None:
    """Change fields of a key that may change. Raises NoSuchKey, and OSError."""
    if not changes.keys() <= CHANGEABLE:
        raise ValueError(f"cannot change {changes.keys() - CHANGEABLE}")
    _update(path, name, changes)


def _update(path: Path, name: str, changes: Mapping[str, object]) -> None:
    put = {
        field: json.dumps(value) if field == "models" else value
        for field, value in changes.items()
    }
    if not os.path.lexists(path):
        raise NoSuchKey(name)
    with _changing_keys(path) as connection:
        sets = ", ".join(f"{field} = ?" for field in put)
        done = connection.execute(
            f"UPDATE keys SET {sets} WHERE name = ? AND revoked IS NULL",  # noqa: S608 - names of columns
            (*put.values(), name),
        )
        if not done.rowcount:
            raise NoSuchKey(name)


def all_keys(path: Path) -> list[ClientKey]:
    """Return all keys, revoked ones included, oldest first. Raises OSError."""
    if not os.path.lexists(path):
        return []
    with _faults_of(path), closing(opened(path, WAIT_SECONDS)) as connection:
        return keys_in(connection)


def keys_in(connection: sqlite3.Connection) -> list[ClientKey]:
    """Read them all, oldest first."""
    wanted = ", ".join(COLUMNS)
    rows = connection.execute(f"SELECT {wanted} FROM keys ORDER BY created, name")  # noqa: S608 - names of columns
    return [_key(row) for row in rows]


def _row(key: ClientKey) -> tuple[object, ...]:
    values = {name: getattr(key, name) for name in COLUMNS}
    return tuple({**values, "models": json.dumps(key.models)}.values())


def _key(row: tuple[object, ...]) -> ClientKey:
    values = dict(zip(COLUMNS, row, strict=True))
    models = tuple(map(str, json.loads(str(values["models"]))))
    admin = bool(values["admin"])
    return ClientKey(**{**values, "models": models, "admin": admin})  # type: ignore[arg-type]  # STRICT tables have these types


# What balancers do


def add_usage(path: Path, spent: Mapping[Spent, UsageCounts]) -> None:
    """Add to what keys have used. Raises OSError; then nothing was added."""
    rows = [
        (*each, counts.requests, counts.prompt, counts.cached, counts.answer)
        for each, counts in spent.items()
    ]
    with _changing(path) as connection:
        connection.executemany(
            "INSERT INTO usage (key, model, day, requests, prompt_tokens,"
            " cached_tokens, answer_tokens) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,"
            " prompt_tokens = prompt_tokens + excluded.prompt_tokens,"
            " cached_tokens = cached_tokens + excluded.cached_tokens,"
            " answer_tokens = answer_tokens + excluded.answer_tokens",
            rows,
        )


def usage_since(path: Path, day: str) -> Iterable[tuple[Spent, UsageCounts]]:
    """Return what was used from a day on. Raises OSError."""
    if not os.path.lexists(path):
        return []
    with _faults_of(path), closing(opened(path, WAIT_SECONDS)) as connection:
        rows = connection.execute(
            "SELECT key, model, day, requests, prompt_tokens, cached_tokens,"
            " answer_tokens FROM usage WHERE day >= ?",
            (day,),
        )
        return [((row[0], row[1], row[2]), UsageCounts(*row[3:])) for row in rows]


# The file


@contextmanager
def _changing_keys(path: Path) -> Generator[sqlite3.Connection]:
    """Change keys in one transaction. Running balancers notice it by the file's time.

    Afterwards the content is moved into the file itself, so that a copy of that file
    alone has every key and every revocation.
    """
    with _changing(path) as connection:
        yield connection
        connection.execute("UPDATE changes SET count = count + 1")
    with suppress(OSError, sqlite3.Error), closing(opened(path, 1.0)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    now = time.time_ns()  # the system's own time for a file is milliseconds coarse
    os.utime(path, ns=(now, now))


@contextmanager
def _changing(path: Path) -> Generator[sqlite3.Connection]:
    """Change the file in one transaction, on the disk when the block has ended."""
    with _faults_of(path):
        if not os.path.lexists(path):
            _create(path)
        with closing(opened(path, WAIT_SECONDS)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")


@contextmanager
def _faults_of(path: Path) -> Generator[None]:
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
