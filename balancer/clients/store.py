"""Client store: keys and usage in `clients.db`, written by commands and balancers."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

from balancer.clients.database import (
    WAIT_SECONDS,
    changing,
    changing_keys,
    faults_of,
    opened,
)
from balancer.clients.keys import ClientKey

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
    with changing_keys(path) as connection:
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
    with changing_keys(path) as connection:
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
    with faults_of(path), closing(opened(path, WAIT_SECONDS)) as connection:
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
    with changing(path) as connection:
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
    with faults_of(path), closing(opened(path, WAIT_SECONDS)) as connection:
        rows = connection.execute(
            "SELECT key, model, day, requests, prompt_tokens, cached_tokens,"
            " answer_tokens FROM usage WHERE day >= ?",
            (day,),
        )
        return [((row[0], row[1], row[2]), UsageCounts(*row[3:])) for row in rows]
