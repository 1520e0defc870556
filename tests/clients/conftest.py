"""Unmodified clients: their packages, and the fleet that `make check-clients` starts.

Each file runs in a virtual environment of its client's own, which has neither EdgeServe
nor the tests' other packages.
"""

from __future__ import annotations

import importlib
import json
import os
import urllib.request
from dataclasses import dataclass
from typing import Any

import pytest

MODEL = "smollm2-135m-instruct"
"""The model of the fleet: chats, continues, and gives embeddings."""

WRONG = "sk-nobody-has-this-key"
LIMIT_SECONDS = 120.0
"""How long a single answer may take; the machine is small and busy."""

QUESTION = "Say hello."
ASK: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
"""A schema that even a tiny model fills in."""

TOOL = {
    "name": "weather",
    "description": "Tells the weather of a city.",
    "parameters": CITY,
}
TOOLS = [{"type": "function", "function": TOOL}]


@dataclass(frozen=True)
class Fleet:
    """The balancer, by its address, and the keys that it knows.

    `single` may have one request at once; `admin` may change the fleet. `open` is a
    balancer of the same node that asks for no key.
    """

    url: str
    key: str
    admin: str
    single: str
    open: str

    @property
    def v1(self) -> str:
        """The address for clients of OpenAI's API."""
        return f"{self.url}/v1"

    def get(self, path: str) -> Any:
        """Return what an admin is shown."""
        headers = {"Authorization": f"Bearer {self.admin}"}
        request = urllib.request.Request(f"{self.url}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as answer:
            return json.load(answer)


def client(package: str) -> Any:
    """Return a client's package; without the fleet for it, the file is skipped."""
    if "CLIENTS_URL" not in os.environ:
        pytest.skip("needs clients and a fleet: make check-clients", True)
    return importlib.import_module(package)


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    given = {
        name: os.environ[f"CLIENTS_{name.upper()}"] for name in Fleet.__annotations__
    }
    return Fleet(**given)
