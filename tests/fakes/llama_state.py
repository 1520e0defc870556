"""How a fake llama-server behaves, and what it has seen and done."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from tests.fakes.llama_slots import Slots

Fault = Literal["reset", "close_after_head", "error", "hang", "break", "die", "stall"]
"""What goes wrong with a generation.

reset             the connection is cut before the answer's head
close_after_head  … and after it, without a byte of body
error             500, always
hang              not a byte, for ever
break, die        the connection, or the whole server, breaks after `fault_tokens`
stall             decoding stops after `fault_tokens`; /health stays well
"""


@dataclass
class Behaviour:
    """How the fake behaves; tests may change it while it runs.

    Rates are tokens per second and slot. Faults hit generations only: the first
    `fault_skip` are spared, then `fault_count` are hit (None: all). A `mangled`
    template does not end in the words that it is to continue. While a file named
    `hold` exists, streams read their prompt for ever. A client that leaves is noticed
    after `notice` seconds.
    """

    slots: int = 2
    prefill: float = 100_000.0
    decode: float = 10_000.0
    batch: int = 256
    context: int = 4096
    length: int = 16
    logprob: float = -0.1
    model: str = "fake:Q4_1"
    api_key: str | None = None
    load_seconds: float = 0.0
    cache: bool = True
    embeddings: bool = False
    rerank: bool = False
    tools: bool = False
    template: str = "well"
    hold: str = ""
    notice: float = 0.0
    fault: Fault | None = None
    fault_tokens: int = 0
    fault_skip: int = 0
    fault_count: int | None = None


@dataclass(frozen=True)
class Seen:
    """One POST as it arrived; header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Counters:
    """What /metrics shows, and what tests ask."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    predicted_tokens: int = 0
    decodes: int = 0
    started: int = 0
    finished: int = 0
    cancelled: int = 0


@dataclass
class State:
    """One fake's memory; `thawed` is clear while it is frozen."""

    behaviour: Behaviour
    requests: list[Seen] = field(default_factory=list[Seen])
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.boot()

    def boot(self) -> None:
        """Begin with empty slots, and load."""
        self.slots = Slots(self.behaviour.slots, lambda: self.behaviour.notice)
        self.ready_at = asyncio.get_running_loop().time() + self.behaviour.load_seconds

    @property
    def loading(self) -> bool:
        """Whether every answer is still 503."""
        return asyncio.get_running_loop().time() < self.ready_at

    async def read(self, request: web.Request) -> dict[str, Any]:
        """Take down a request, and return its body."""
        body = json.loads(await request.read())
        if not isinstance(body, dict):
            raise TypeError("the body must be an object")
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Seen(request.method, request.path, headers, body))
        return body

    def fault(self) -> Fault | None:
        """Say what goes wrong with the generation that begins now."""
        self.counters.started += 1
        past = self.counters.started - 1 - self.behaviour.fault_skip
        count = self.behaviour.fault_count
        if past < 0 or (count is not None and past >= count):
            return None
        return self.behaviour.fault
