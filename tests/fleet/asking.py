"""What a client asks a balancer, and what it gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.fleet.fleet import Fleet, Process, answer

Json = dict[str, Any]
PROMPT = " ".join(["word"] * 100)


@dataclass
class Got:
    """The end of one request."""

    status: int = 0
    body: bytes = b""
    error: str = ""

    @property
    def whole(self) -> bool:
        """Whether a stream came to its proper end."""
        return self.status == 200 and b"data: [DONE]" in self.body and not self.error

    @property
    def silent(self) -> bool:
        """Whether no event has come; comments say that it waits."""
        return b"data:" not in self.body


class Client:
    """Asks one balancer from the client's host."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def nodes(self) -> dict[str, Json]:
        """Return the fleet's members that have reported, by name."""
        async with self.session.get("/edgeserve/v1/nodes") as found:
            members: list[Json] = await found.json()
        return {each["report"]["name"]: each for each in members if each["report"]}

    async def serving(self, *names: str) -> dict[str, Json]:
        """Wait until just these nodes are up with a ready engine; return them."""
        return await answer(
            self.nodes,
            lambda nodes: {name for name in nodes if ready(nodes[name])} == set(names),
            f"{', '.join(names)} serve",
        )

    async def draining(self, name: str) -> None:
        """Wait until a node reports that it takes no new requests."""
        await answer(
            self.nodes,
            lambda nodes: bool(nodes[name]["report"]["state"] == "draining"),
            f"{name} drains",
        )

    async def requests(self) -> list[Json]:
        """Return the balancer's records, the latest first."""
        async with self.session.get("/edgeserve/v1/requests") as found:
            records: list[Json] = await found.json()
            return records

    async def at_work(self) -> str:
        """Wait until a request runs somewhere; return the node's name."""

        async def busy() -> list[str]:
            return list(_running(await self.requests()))

        return (await answer(busy, bool, "a node is at work"))[0]

    async def full(self) -> str:
        """Wait until some node's slots are all taken by requests; return its name."""

        async def full() -> list[str]:
            return _full(await self.requests(), await self.nodes())

        return (await answer(full, bool, "a node is full"))[0]

    async def stream(self, got: Got, model: str = "small", tokens: int = 20) -> None:
        """Ask for a streamed chat; `got` fills as it arrives."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": True,
            "max_tokens": tokens,
            "ignore_eos": True,
        }
        try:
            async with self.session.post("/v1/chat/completions", json=body) as answer_:
                got.status = answer_.status
                async for piece in answer_.content.iter_any():
                    got.body += piece
        except (aiohttp.ClientError, OSError) as error:
            got.error = repr(error)


def ready(member: Json) -> bool:
    """Whether a member of the fleet can take requests."""
    engines = member["report"]["engines"]
    able = any(each["state"] in {"ready", "busy"} for each in engines)
    return able and bool(member["state"] == "up") and member["report"]["state"] == "up"


def _running(requests: list[Json]) -> Counter[str]:
    """Count the requests that run on each node; a probe is none."""
    attempts = [attempt for each in requests for attempt in each["attempts"]]
    return Counter(each["node"] for each in attempts if each["outcome"] is None)


def _full(requests: list[Json], nodes: dict[str, Json]) -> list[str]:
    """Name those whose slots are all taken, and by requests."""
    running = _running(requests)
    return [
        name
        for name, member in nodes.items()
        for engine in member["report"]["engines"]
        if engine["busy"] == engine["slots"] == running[name]
    ]


@asynccontextmanager
async def client(made: Fleet, balancer: Process) -> AsyncGenerator[Client]:
    """Ask a balancer for the length of the block."""
    async with made.asking(f"http://{balancer.host.address}:8080") as session:
        yield Client(session)
