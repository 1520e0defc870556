"""Admission: which client sends a request, by its key, and which are let in.

Keys are needed as soon as there is one, also a revoked one, and from then on until the
process ends. Without any, the balancer is for this machine, or for everyone where it is
told so, and web pages of other sites are refused.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from hmac import compare_digest
from pathlib import Path

from balancer.clients.keys import (
    GUEST,
    LOCAL_NAME,
    OWNER,
    AdminOnly,
    ClientKey,
    KeysUnusable,
    key_id,
)
from balancer.clients.store import store_in
from balancer.clients.watch import FileKeys, StoredKeys
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import EdgeserveError, Unauthorized, in_words
from edgeserve.runtime.files import read_text, remove, replace_file
from edgeserve.security.tokens import Guard, new_secret, secret_in

log = logging.getLogger(__name__)

OWNER_ONLY = 0o600

LENGTH = len(new_secret("admin"))


class Admission:
    """Names the client of each request, or refuses it.

    `anonymous`: clients without a key are let in, keys or not.
    """

    def __init__(
        self,
        stored: StoredKeys,
        file: FileKeys,
        without_key: Guard,
        *,
        anonymous: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`without_key` checks requests where none is needed; `clock` is of 1970."""
        self._stored, self._file = stored, file
        self._without_key = without_key
        self._anonymous = anonymous
        self._clock = clock
        self._local: dict[str, ClientKey] = {}
        self._known: Mapping[str, ClientKey] = {}
        self._keyed = False
        self._gather()

    def __bool__(self) -> bool:
        """Whether clients need a key."""
        self._look()
        return self._keyed and not self._anonymous

    @property
    def keyed(self) -> bool:
        """Whether there is any key, or may be one that cannot be read."""
        return self._keyed

    def trust(self, secret: str) -> None:
        """Let the commands of this machine in as an admin."""
        id_ = key_id(secret)
        self._local = {id_: ClientKey(id=id_, name=LOCAL_NAME, admin=True)}
        self._gather()

    def check(self, headers: Mapping[str, str]) -> ClientKey:
        """Return the key of a request, `OWNER` or `GUEST` where it has and needs none.

        Raises Unauthorized, Forbidden, KeysUnusable.
        """
        self._look()
        secret = secret_in(headers)
        key = self._find(secret) if secret else None
        if key is not None and self._counts(key):
            return key
        if not self._keyed or self._anonymous:
            self._without_key.check(headers)
            return GUEST if self._keyed else OWNER
        if key is None and self._stored.problem:
            raise KeysUnusable
        raise Unauthorized(_why(key))

    def admin(self, headers: Mapping[str, str]) -> ClientKey:
        """Return the key of a request that may see everything; raises AdminOnly, too.

        Without any key in the balancer, every client that is let in may.
        """
        key = self.check(headers)
        if not key.admin:
            raise AdminOnly
        return key

    def still_admin(self, headers: Mapping[str, str]) -> bool:
        """Whether an open stream may go on: its key may have been revoked meanwhile."""
        try:
            self.admin(headers)
        except EdgeserveError:
            return False
        return True

    def manager(self, headers: Mapping[str, str]) -> ClientKey:
        """Return the admin key of a request that changes the fleet; it needs one."""
        key = self.check(headers)
        if not (key.admin and key.id):
            raise AdminOnly
        return key

    def all(self) -> list[ClientKey]:
        """Return the keys that were made, revoked ones included."""
        self._look()
        return [*self._stored.keys.values(), *self._file.keys.values()]

    def _find(self, secret: str) -> ClientKey | None:
        id_ = key_id(secret)
        key = self._known.get(id_)
        return key if key is not None and compare_digest(key.id, id_) else None

    def _counts(self, key: ClientKey) -> bool:
        if key.revoked is not None:
            return False
        return key.expires is None or self._clock() < key.expires

    def _look(self) -> None:
        changed = self._file.changed()
        if self._stored.changed() or changed:
            self._gather()

    def _gather(self) -> None:
        keys = {**self._stored.keys, **self._file.keys}
        trouble = self._stored.problem or self._file.problem
        self._keyed = self._keyed or bool(keys or trouble)
        self._known = {**keys, **self._local}


def _why(key: ClientKey | None) -> str:
    if key is None:
        return "API key missing or wrong"
    return f"this API key {'has expired' if key.revoked is None else 'was revoked'}"


@contextmanager
def admitting(settings: BalancerSettings) -> Generator[Admission]:
    """Read the keys, and follow their changes. Raises SettingsError."""
    file = FileKeys(settings.api_key_file)
    with closing(StoredKeys(store_in(settings.state_dir))) as stored:
        yield Admission(
            stored,
            file,
            Guard((), "API key", settings.cors_origins),
            anonymous=settings.anonymous,
        )


@contextmanager
def local_admin(
    admission: Admission,
    path: Path,
    taken: asyncio.Event,
    *,
    inherits: bool = False,
) -> Generator[None]:
    """Leave a new admin key in a file, for commands of the same account.

    A process that takes over keeps the key of the other one, which may still answer.
    Once `taken` is set, another process keeps the file.
    """
    secret = (key_left_in(path) if inherits else None) or new_secret("admin")
    admission.trust(secret)
    try:
        replace_file(path, f"{secret}\n".encode(), mode=OWNER_ONLY)
    except OSError as error:
        log.warning(
            "commands on this machine need a key of their own: cannot write %s: %s",
            path,
            in_words(error),
        )
    try:
        yield
    finally:
        if not taken.is_set():
            remove(path)


def key_left_in(path: Path) -> str | None:
    """Return the key that `local_admin` has left in a file, None without one."""
    try:
        found = read_text(path).strip()
    except OSError:
        return None
    return found if found.startswith("admin-") and len(found) == LENGTH else None
