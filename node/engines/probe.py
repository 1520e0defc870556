"""Engine probes: read an engine's health, properties and metrics, with timeouts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec

from edgeserve.errors import NodeLost
from edgeserve.http.types import Origin, Upstream
from edgeserve.openai import SMALLEST
from edgeserve.orders.caches import CacheFit
from edgeserve.wire import Ability
from node.engines.base import Role

PROGRESS = ("n_decode_total", "prompt_tokens_total", "tokens_predicted_total")
WORK = ("requests_processing", "requests_deferred")
PREFIX = "llamacpp:"
CALLS, READ = 0, 1
"""Positions in PROGRESS of decode calls and of prompt tokens."""


@dataclass(frozen=True)
class Counters:
    """The counters of /metrics: the progress, and whether there is work.

    `requests` counts those in slots and those that wait for one.
    """

    done: tuple[float, ...]
    working: bool
    requests: float = field(default=0.0, compare=False)


def parse(metrics: str) -> Counters:
    """Parse /metrics; a missing counter is 0."""
    values: dict[str, float] = {}
    for line in metrics.splitlines():
        if line.startswith(PREFIX):
            name, _, value = line.removeprefix(PREFIX).partition(" ")
            values[name] = _number(value)
    done = tuple(values.get(name, 0.0) for name in PROGRESS)
    requests = sum(values.get(name, 0.0) for name in WORK)
    return Counters(done, requests > 0, requests)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


ANSWER_SECONDS = 5.0


class Unwell(Exception):
    """The engine answered, but not as a healthy engine does."""


@dataclass(frozen=True)
class Properties:
    """Of /props: context per slot in tokens, and abilities that the model lacks.

    `saves` is what states of its slots fit, if it can save them.
    """

    context: int
    lacks: frozenset[Ability]
    build: str
    saves: CacheFit | None = None

    @property
    def vision(self) -> bool:
        """Whether the model reads images."""
        return "vision" not in self.lacks


@dataclass(frozen=True)
class Probe:
    """Requests to the engine at `origin`."""

    upstream: Upstream
    origin: Origin
    api_key: str

    async def healthy(self) -> bool:
        """Whether the weights are loaded."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status, _ = await self.ask("GET", "/health")
        except (TimeoutError, NodeLost):
            return False
        return status == 200

    async def answers(self, seconds: float) -> bool:
        """Whether it answers /health within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self.ask("GET", "/health")
        except (TimeoutError, NodeLost):
            return False
        return True

    async def first_work(self, role: Role) -> None:
        """Have one token generated, or one vector made; the caller sets the timeout.

        Raises Unwell, or NodeLost.
        """
        path, body = SMALLEST["completion" if role == "generate" else role]
        status, answer = await self.ask("POST", path, msgspec.json.encode(body))
        if status != 200:
            text = answer[:200].decode(errors="replace")
            raise Unwell(f"the first {path} was answered {status}: {text}")

    async def properties(self) -> Properties:
        """Read /props. Raises Unwell, or NodeLost."""
        status, answer = await self.ask("GET", "/props")
        try:
            props = msgspec.json.decode(answer, type=_Props)
        except msgspec.DecodeError as error:
            raise Unwell(f"/props was answered {status}: {error}") from error
        context = props.default_generation_settings.n_ctx
        return Properties(context, _lacks(props), props.build_info)

    async def counters(self) -> Counters | None:
        """Read /metrics; None where it does not answer."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status, answer = await self.ask("GET", "/metrics")
        except (TimeoutError, NodeLost):
            return None
        return parse(answer.decode(errors="replace")) if status == 200 else None

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Return status and body. Raises NodeLost; the caller sets the timeout."""
        headers = {"authorization": f"Bearer {self.api_key}"}
        if body:
            headers["content-type"] = "application/json"
        async with self.upstream.ask(
            self.origin, method, path, headers, body
        ) as answer:
            return answer.status, await answer.read()


def _lacks(props: _Props) -> frozenset[Ability]:
    media: tuple[Ability, ...] = ("vision", "audio")
    lacks: set[Ability] = {each for each in media if not props.modalities.get(each)}
    # Older builds do not tell.
    if not props.chat_template_caps.get("supports_tool_calls", True):
        lacks.add("tools")
    return frozenset(lacks)


class _Settings(msgspec.Struct):
    n_ctx: int


class _Props(msgspec.Struct):
    default_generation_settings: _Settings
    modalities: dict[str, bool] = {}
    chat_template_caps: dict[str, bool] = {}
    build_info: str = ""
