"""A whole balancer in this process, in front of fake nodes."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

from balancer.app import Balancer, running
from balancer.discovery.events import ReconnectPolicy
from balancer.fleet.members import Fleet
from edgeserve.config.settings import BalancerSettings
from tests.fakes.node import FakeNode
from tests.patience import PATIENCE

CHAT = "/v1/chat/completions"
QUICK = ReconnectPolicy(suspect=20.0, forget=0.2, starting=0.0, jitter=lambda: 0.0)


def chat(words: str = "hi", model: str = "small", **fields: Any) -> dict[str, Any]:
    """Build a chat request."""
    messages = [{"role": "user", "content": words}]
    return {"model": model, "messages": messages, **fields}


@dataclass
class Endpoint:
    """A running balancer, and a client of it."""

    balancer: Balancer
    session: aiohttp.ClientSession
    heard: list[str] = field(default_factory=list[str])

    async def post(
        self,
        path: str,
        body: Mapping[str, Any] | bytes,
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        """Ask, and read the answer whole."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(
            path, headers=headers, data=io.BytesIO(data)
        ) as response:
            return Answered(response, await response.read())

    async def get(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> Answered:
        """Ask, and read the answer whole."""
        async with self.session.get(path, headers=headers) as response:
            return Answered(response, await response.read())

    async def until(self, true: Callable[[Fleet], bool]) -> None:
        """Wait until something is true of the fleet."""
        current = self.balancer.state.current
        changed = asyncio.Event()
        current.listen(changed.set)
        async with asyncio.timeout(PATIENCE):
            while not true(current.fleet):
                changed.clear()
                await changed.wait()


class Answered:
    """An answer that was read to its end."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of an error."""
        message: str = self.json["error"]["message"]
        return message

    @property
    def text(self) -> str:
        """What the model said in a chat."""
        content: str = self.json["choices"][0]["message"]["content"]
        return content


def everyone_up(fleet: Fleet) -> bool:
    """Whether all that was seen has answered."""
    return all(address.state == "up" for address in fleet.addresses.values())


@asynccontextmanager
async def endpoint(
    *nodes: FakeNode | str,
    pace: ReconnectPolicy = QUICK,
    wait: bool = True,
    **settings: Any,
) -> AsyncGenerator[Endpoint]:
    """Run a balancer that knows `nodes`; by default once it has heard of them all.

    It measures nobody and remembers nothing, unless told to.
    """
    urls = tuple(each if isinstance(each, str) else each.url for each in nodes)
    heard = list[str]()
    chosen: dict[str, Any] = {
        "port": 0,
        "nodes": urls,
        "discover": False,
        "calibrate": False,
    }
    chosen |= settings
    with TemporaryDirectory(prefix="edgeserve-") as folder:
        chosen.setdefault("state_dir", Path(folder))
        async with _running(chosen, heard, pace) as running_endpoint:
            if wait:
                await running_endpoint.until(everyone_up)
            yield running_endpoint


@asynccontextmanager
async def _running(
    settings: dict[str, Any], heard: list[str], pace: ReconnectPolicy
) -> AsyncGenerator[Endpoint]:
    async with (
        running(BalancerSettings(**settings), say=heard.append, pace=pace) as balancer,
        aiohttp.ClientSession(balancer.origin.url) as session,
    ):
        yield Endpoint(balancer, session, heard)


def a_secret(folder: Path, name: str, secret: str) -> Path:
    """Write a secret to a file."""
    path = folder / name
    path.write_text(secret + "\n", encoding="utf-8")
    return path


async def eventually(true: Callable[[], bool]) -> None:
    """Wait, bounded, for what another task is about to do."""
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def busy(
    balancer: Endpoint, requests: int, *nodes: FakeNode
) -> AsyncGenerator[None]:
    """Have requests at work at these nodes until the block ends; then they end well."""

    def told() -> int:
        return sum(each.path == CHAT for node in nodes for each in node.told)

    before = told()
    for node in nodes:
        node.llama.freeze()
    asked = [
        asyncio.ensure_future(balancer.post(CHAT, chat())) for _ in range(requests)
    ]
    await eventually(lambda: told() == before + requests)
    try:
        yield
    finally:
        for node in nodes:
            node.llama.thaw()
    assert {each.status for each in await asyncio.gather(*asked)} == {200}
