"""Tokens and keys: reads their files, and checks the keys of clients."""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from ipaddress import ip_address
from math import inf
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from edgeserve.config.paths import config_dir
from edgeserve.errors import Forbidden, SettingsError, Unauthorized, in_words
from edgeserve.runtime.files import RepeatedFault, read_text, stamp
from edgeserve.security.proof import FleetKey, fleet_key

log = logging.getLogger(__name__)

MINIMUM = 16
"""Shortest secret accepted, in characters."""

LONGEST = 1024
"""Longest secret accepted, in characters."""

MOST_BYTES = 2**20
"""Longest file of secrets."""


class Guard:
    """Accepts requests that carry one of several secrets; without secrets, all.

    Web pages of other sites are refused even then: a browser lets each of them post to
    loopback, where it could register a node of its own that then gets users' prompts.
    """

    def __init__(
        self, secrets_: Iterable[str], what: str, origins: Collection[str] = ()
    ) -> None:
        """`origins` are other sites that are accepted too; `*` for all."""
        self._secrets = tuple(secret.encode() for secret in secrets_)
        self._what = what
        self._origins = frozenset(each.lower() for each in origins)

    def __bool__(self) -> bool:
        """Whether a secret is required."""
        return bool(self._secrets)

    def check(self, headers: Mapping[str, str]) -> str | None:
        """Return the request's secret, or raise Unauthorized or Forbidden.

        Reads `Authorization: Bearer …` and `X-Api-Key` (what Anthropic's clients send).
        Every secret is compared, each in constant time.
        """
        if not self._secrets:
            origin = headers.get("origin")
            if origin is not None and not self._is_allowed(origin):
                raise Forbidden(origin)
            return None
        secret = secret_in(headers).encode(errors="surrogateescape")
        if not any([hmac.compare_digest(secret, each) for each in self._secrets]):  # noqa: C419 - compare them all
            raise Unauthorized(f"{self._what} missing or wrong")
        return secret.decode()

    def _is_allowed(self, origin: str) -> bool:
        named = origin.lower() in self._origins or "*" in self._origins
        return named or not is_foreign(origin)


def is_foreign(origin: str) -> bool:
    """Whether this is the origin of a web page of another site.

    Only pages have such origins; extensions and programs have other schemes.
    """
    if not origin.lower().startswith(("http:", "https:", "null")):
        return False
    try:
        host = urlsplit(origin).hostname or ""
    except ValueError:
        host = ""
    return not is_loopback(host)


def secret_in(headers: Mapping[str, str]) -> str:
    """Return the secret of a request as it was sent, or an empty string."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    return headers.get("x-api-key", "")


def new_secret(prefix: str) -> str:
    """Return a secret with 256 random bits, recognisable by its prefix."""
    return f"{prefix}-{secrets.token_urlsafe(32)}"


UNTIL = "until "
"""Begins the comment above an old token, before the time at which it ends."""


class FleetTokens:
    """The fleet token, and old ones that are still valid; read anew when they change.

    Raises SettingsError at the start, where there is a file that cannot be used. Later
    such a file changes nothing, and is logged once.
    """

    def __init__(
        self, path: Path | None, clock: Callable[[], float] = time.time
    ) -> None:
        """`path`: the file that is set, else the usual one, which may be missing."""
        self._path, self._clock = path, clock
        self.file = path or config_dir() / "token"
        self._stamp = stamp(self.file)
        self._found = read_tokens(path)
        self._trouble = RepeatedFault(log.warning)

    def __bool__(self) -> bool:
        """Whether this machine belongs to a fleet."""
        return bool(self._found)

    def keys(self) -> tuple[FleetKey, ...]:
        """Return the keys of the valid tokens, the newest first."""
        found = stamp(self.file)
        if found != self._stamp:
            self._stamp = found
            self._read()
        now = self._clock()
        return tuple(key for key, ends in self._found if ends > now)

    def newest(self) -> str:
        """Return the token, for a machine that was let in. Raises SettingsError."""
        found = _tokens_in(self._path)
        if not found:
            raise SettingsError(f"there is no {self.file} any longer")
        return found[0].value

    def _read(self) -> None:
        try:
            found = read_tokens(self._path)
        except SettingsError as error:
            self._trouble.report(f"{error}; the tokens read before stay valid")
        else:
            self._found = found or self._found
            self._trouble.ended()


def read_tokens(path: Path | None) -> tuple[tuple[FleetKey, float], ...]:
    """Read the file of fleet tokens: keys, and when each ends, in seconds since 1970.

    One token a line, the newest first. Raises SettingsError.
    """
    found = tuple((fleet_key(each.value), _ends(each)) for each in _tokens_in(path))
    if sum(ends == inf for _, ends in found) > 1:
        source = path or config_dir() / "token"
        raise SettingsError(f"{source} holds several tokens; `edgeserve token rotate`")
    return found


def _ends(token: Secret) -> float:
    """Return when a token ends; an old one with a damaged time has ended."""
    if not token.comment.startswith(UNTIL):
        return inf
    try:
        return datetime.fromisoformat(token.comment[len(UNTIL) :]).timestamp()
    except ValueError:
        return 0.0


class Secret(NamedTuple):
    """A line of a file of secrets, and the comment above it, without its `#`."""

    value: str
    comment: str


def _tokens_in(path: Path | None) -> tuple[Secret, ...]:
    return read_secrets(path, config_dir() / "token", "edgeserve token new")


def read_api_keys(path: Path | None) -> tuple[Secret, ...]:
    """Read client API keys from `path`, or from their usual place if there is one."""
    return read_secrets(path, config_dir() / "api-keys", "edgeserve key new")


def read_secrets(path: Path | None, usual: Path, maker: str) -> tuple[Secret, ...]:
    """Read one secret a line; `#` starts a comment line. `maker` is a command.

    Raises SettingsError where a named file cannot be read, is empty, or is too weak.
    """
    source = path or usual
    try:
        found = tuple(_secrets_in(read_text(source, MOST_BYTES)))
    except FileNotFoundError as error:
        if path is None and not usual.is_symlink():
            return ()
        raise SettingsError(f"cannot read {source}: {error.strerror}") from error
    except OSError as error:
        raise SettingsError(f"cannot read {source}: {in_words(error)}") from error
    if not found:
        raise SettingsError(f"{source} is empty; `{maker}` makes one")
    if not all(is_sendable(each.value) for each in found):
        raise SettingsError(
            f"{source} has a line that is no secret; `{maker}` makes one"
        )
    if any(len(each.value) < MINIMUM for each in found):
        raise SettingsError(f"{source} holds a secret under {MINIMUM} characters")
    return found


def _secrets_in(text: str) -> Iterator[Secret]:
    comment = ""
    for line in text.splitlines():
        if line.startswith("#"):
            comment = line.lstrip("# ").strip()
        elif line.strip():
            yield Secret(line.strip(), comment)
            comment = ""


def is_sendable(secret: str) -> bool:
    """Whether it can be a header value; damaged content mostly cannot."""
    printable = secret.isascii() and secret.isprintable()
    return printable and " " not in secret and len(secret) <= LONGEST


def is_loopback(host: str) -> bool:
    """Whether an address reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False  # a name such as 127.example.org is any machine's
