"""A key for tests, and the header fields that show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from balancer.clients.admission import Admission
from balancer.clients.keys import ClientKey, key_id

SECRET = "key-of-many-random-letters"


def bearer(secret: str = SECRET) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def a_key(secret: str = SECRET, **fields: Any) -> ClientKey:
    return ClientKey(**{"id": key_id(secret), "name": "laptop"} | fields)


Admit = Callable[..., Admission]
