"""Client keys: what a key may do, how it is recognised, and its refusals. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256

from edgeserve.errors import EdgeserveError, SettingsError
from edgeserve.openai import normal

ANONYMOUS_NAME, LOCAL_NAME = "anonymous", "local-admin"
RESERVED = (ANONYMOUS_NAME, LOCAL_NAME)
"""Names of clients without a key, and of commands on the balancer's own machine."""

LONGEST_NAME = 64
MOST = 2**31 - 1
"""Largest limit; a limit of 0 is none."""

_NAME = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """One key without its secret; `id` is the secret's `key_id`, empty for no key.

    `models` are allowed by name, all where there are none. Limits are per minute,
    `at_once` counts requests; 0 is no limit. Of waiting requests the highest `priority`
    is served first. Times are seconds since 1970. An `admin` sees the whole fleet and
    the requests of all keys.
    """

    id: str
    name: str
    admin: bool = False
    models: tuple[str, ...] = ()
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    at_once: int = 0
    priority: int = 0
    created: float = 0.0
    expires: float | None = None
    revoked: float | None = None

    @property
    def limited(self) -> bool:
        """Whether any number is limited."""
        return bool(self.requests_per_minute or self.tokens_per_minute or self.at_once)

    def allows(self, model: str) -> bool:
        """Whether a request may name `model`, in normal spelling.

        A model stands for all its variants, a variant for itself. Other names of a
        model, such as its file's, are not resolved: what they mean can change while a
        request waits.
        """
        if not self.models:
            return True
        allowed = [each.removesuffix(":*") for each in self.models]
        return model in allowed or model.partition(":")[0] in allowed


OWNER = ClientKey(id="", name=ANONYMOUS_NAME, admin=True)
"""Every client of a balancer that has no keys: it may see what it always could."""

GUEST = ClientKey(id="", name=ANONYMOUS_NAME)
"""A client without a key where others have one."""

REFUSED = ClientKey(id="refused", name="")
"""A client whose key is missing or wrong."""


def key_id(secret: str) -> str:
    """Return the SHA-256 of a secret in hex digits, by which it is stored and found.

    A slow or salted hash protects passwords, which can be guessed. A key has 256 random
    bits: it can neither be guessed nor be in a table, and a slow hash would cost each
    request its time. Looking the digest up in a dictionary shows nothing by its timing:
    which digest a guess has is out of the guesser's hands, and Python compares digests
    only where its own keyed hash of both is the same.
    """
    return sha256(secret.encode(errors="surrogateescape")).hexdigest()


def checked_name(name: str) -> str:
    """Return the name of a new key. Raises SettingsError where it is none."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise SettingsError(
            f"{name!r} is no name for a key: it needs 1 to {LONGEST_NAME} characters"
            " on one line"
        )
    if name in RESERVED:
        raise SettingsError(f"{name!r} is the name of clients without a key of theirs")
    return name


def checked_models(models: Sequence[str]) -> tuple[str, ...]:
    """Return allowed models in normal spelling; `*` among them allows all."""
    found = tuple(dict.fromkeys(map(normal, models)))
    if "" in found:
        raise SettingsError("a model needs a name; `edgeserve models` lists them")
    return () if "*" in found else found


class ModelNotAllowed(EdgeserveError):
    """The key is for other models."""

    status = 403
    code = "model_not_allowed"
    kind = "permission_error"

    def __init__(self, model: str, allowed: Collection[str]) -> None:
        asked = f"not {model!r}" if model else "so that a request has to name one"
        super().__init__(f"this key is for {', '.join(allowed)}, {asked}")


class AdminOnly(EdgeserveError):
    """Only an admin key may ask this."""

    status = 403
    code = "admin_only"
    kind = "permission_error"

    def __init__(self) -> None:
        super().__init__(
            "this needs an admin key; `edgeserve key new --admin` makes one, and on the"
            " balancer's own machine the commands have one"
        )


class KeysUnusable(EdgeserveError):
    """The file of keys is damaged, so that no key of it can be checked."""

    status = 503
    code = "keys_unusable"
    retry_after = 30

    def __init__(self) -> None:
        super().__init__(
            "the balancer cannot read its file of client keys, and lets no client in;"
            " its log says why"
        )
