"""Server asking: send a server its GETs, with its key, and bound what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeserve.config.servers import ServerSetting, key_of
from edgeserve.errors import NodeLost, SettingsError, in_words
from edgeserve.http.types import Origin, Upstream
from edgeserve.runtime.files import read_text
from edgeserve.servers.profiles.base import Reply

LARGEST = 8 * 2**20
"""Bytes of an answer to a GET; a larger one is no list and no metrics."""

LONGEST_KEY = 16384
LONGEST_FILE = 2**20
"""Bytes of a file with a key or with certificates."""


async def get(
    upstream: Upstream,
    origin: Origin,
    path: str,
    key: str,
    url: str,
    extra: Mapping[str, str] | None = None,
) -> Reply:
    """Ask for a path. Raises NodeLost; `url` is what its sentence calls the server."""
    headers = {**bearing(key), **(extra or {})}
    async with upstream.ask(origin, "GET", path, headers) as answer:
        pieces, size = list[bytes](), 0
        while piece := await answer.chunk():
            pieces.append(piece)
            size += len(piece)
            if size > LARGEST:
                raise NodeLost(
                    f"GET {path} of {url} was answered with more than {LARGEST} bytes,"
                    " perhaps without end: is its URL right?"
                )
        body = b"".join(pieces)
        if answer.status != 200:
            body = without_key(body, key)
        return Reply(answer.status, answer.headers, body, keyed=bool(key))


def bearing(key: str) -> dict[str, str]:
    """Return the headers that show a server its key, none for ""."""
    return {"authorization": f"Bearer {key}"} if key else {}


def without_key(body: bytes, key: str) -> bytes:
    """Hide a key in an error, which may repeat what the server was shown. Pure."""
    return body.replace(key.encode(), b"***") if key else body


def read_key(setting: ServerSetting) -> str:
    """Return the key that a server asks for, "" for none. Raises SettingsError."""
    file = key_of(setting)
    if file is None:
        return ""
    key = text_in(file, setting, "key").strip()
    check_key(key, f"{file}: {setting.url}")
    return key


def text_in(file: Path, setting: ServerSetting, what: str) -> str:
    """Return the content of a file that a server's settings name."""
    try:
        return read_text(file, LONGEST_FILE)
    except OSError as error:
        raise SettingsError(
            f"the {what} of {setting.url} cannot be read: {in_words(error)}"
        ) from error


def check_key(key: str, whose: str) -> None:
    """Refuse what cannot be sent as a key. Raises SettingsError."""
    if not key.isprintable() or not key.isascii() or len(key) > LONGEST_KEY:
        raise SettingsError(f"{whose}: there is no key on one line")
