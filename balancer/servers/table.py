"""Server table: the servers of the settings, and those that were added at run time.

The latter are kept with their keys in a file of the state folder that only its owner
can read. One that is damaged costs these servers, with a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from balancer.servers.server import Server, server_of
from edgeserve.config.servers import (
    ServerSetting,
    WrongServer,
    place_of,
    server_collision,
    server_from,
)
from edgeserve.errors import BadRequest, SettingsError, in_words
from edgeserve.runtime.files import read_json
from edgeserve.runtime.stored import store
from edgeserve.servers.asking import check_key

log = logging.getLogger(__name__)

FILE = "servers.json"

MOST_SERVERS = 256
"""Servers that can be added at run time."""

SECRET = ("key", "ca")
"""What is kept beside the settings of a server that was added."""

ELSEWHERE = {"key_file": "key", "ca_file": "ca"}
"""Settings that name files, and what is sent instead."""


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file."""

    servers: list[dict[str, Any]]


def server_in(table: Mapping[str, Any]) -> Server:
    """Return the server that a request or the file describes. Raises WrongServer.

    It names no files: a request must not make the balancer read any and send them away.
    """
    for name, content in ELSEWHERE.items():
        if name in table:
            raise WrongServer(
                f"`{name}` is for settings files; here `{content}` has its content"
            )
    key, ca = (table.get(each, "") for each in SECRET)
    if not isinstance(key, str) or not isinstance(ca, str):
        raise WrongServer("`key` and `ca` must be texts")
    rest = {name: each for name, each in table.items() if name not in SECRET}
    setting = server_from(rest)
    try:
        check_key(key, "`key`")
        return server_of(setting, key, ca)
    except SettingsError as error:
        raise WrongServer(str(error)) from error


class ServerTable:
    """All servers; `fixed` are those of the settings, `added` the others."""

    def __init__(self, fixed: Iterable[ServerSetting] = (), folder: Path | None = None):
        self._path = folder / FILE if folder else None
        self.fixed = [server_of(each) for each in fixed]
        self.added = list[Server]()
        for server in _kept(self._path) if self._path else ():
            self._admit(server)

    @property
    def all(self) -> list[Server]:
        """Those of the settings first."""
        return [*self.fixed, *self.added]

    def _admit(self, server: Server) -> None:
        """Take in a server that was kept, unless the settings now contradict it."""
        if problem := self._problem(server):
            log.warning("%s: left out: %s", self._path, problem)
        else:
            self.added.append(server)

    def _problem(self, server: Server) -> str:
        return server_collision([*(each.setting for each in self.all), server.setting])

    def check(self, server: Server) -> None:
        """Refuse a server that cannot be added. Raises BadRequest."""
        place = place_of(server.setting.url)
        for each in self.all:
            if place_of(each.setting.url) == place:
                raise BadRequest(
                    f"{server.setting.url} serves here as {each.name};"
                    f" `edgeserve servers rm {each.name}` first"
                )
        if problem := self._problem(server):
            raise BadRequest(problem)
        if len(self.added) >= MOST_SERVERS:
            raise BadRequest(f"there are {MOST_SERVERS} servers, the most there may")

    async def keep(self) -> None:
        """Write down those that were added. Raises NotStored."""
        if self._path is not None:
            stored = _Stored(servers=list(map(_stored, self.added)))
            await store(self._path, stored, mode=0o600)


def _stored(server: Server) -> dict[str, Any]:
    secret = {name: getattr(server, name) for name in SECRET}
    given = {name: each for name, each in secret.items() if each}
    return {**server.setting.shown(), **given}


def _kept(path: Path) -> list[Server]:
    """Read the file; none without one, nor from one that is damaged."""
    try:
        tables = read_json(path, _Stored).servers
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        log.warning("servers that were added are lost: %s: %s", path, in_words(error))
        return []
    found = list[Server]()
    for each in tables:
        try:
            found.append(server_in(each))
        except WrongServer as error:  # its text has no key
            log.warning("a server that was added is lost: %s: %s", path, error)
    return found
