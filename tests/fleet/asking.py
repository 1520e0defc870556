"""What a client asks a balancer, and what it gets."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.fleet.fleet import Fleet, Process, answer

PROMPT = " ".join(["word"] * 100)


@dataclass
class Got:
    """One request's fate."""

    status: int = 0
    node: str = ""
    attempts: int = 0
    body: bytes = b""
    error: str = ""

    @property
    def whole(self) -> bool:
        """Whether a stream came to its proper end."""
        return self.status == 200 and b"data: [DONE]" in self.body and not self.error


class Client:
    """Asks one balancer from the client's host."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def nodes(self) -> dict[str, dict[str, Any]]:
        """Return the fleet's members that have reported, by name."""
        async with self._session.get("/edgeserve/v1/nodes") as found:
            members: list[dict[str, Any]] = await found.json()
        return {each["report"]["name"]: each for each in members if each["report"]}

    async def serving(self, *names: str) -> dict[str, dict[str, Any]]:
        """Wait until just these nodes are up with a ready engine; return them."""
        return await answer(
            self.nodes,
            lambda nodes: {name for name in nodes if ready(nodes[name])} == set(names),
            f"{', '.join(names)} serve",
        )

    async def stream(self, got: Got, model: str = "small", tokens: int = 20) -> None:
        """Ask for a streamed chat; `got` fills as it arrives."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": True,
            "max_tokens": tokens,
        }
        try:
            async with self._session.post("/v1/chat/completions", json=body) as answer_:
                got.status = answer_.status
                got.node = answer_.headers.get("x-edgeserve-node", "")
                got.attempts = int(answer_.headers.get("x-edgeserve-attempts", "0"))
                async for piece in answer_.content.iter_any():
                    got.body += piece
        except (aiohttp.ClientError, OSError) as error:
            got.error = repr(error)


def ready(member: dict[str, Any]) -> bool:
    """Whether a member of the fleet can take requests."""
    engines = member["report"]["engines"]
    able = any(each["state"] in {"ready", "busy"} for each in engines)
    return able and bool(member["state"] == "up") and member["report"]["state"] == "up"


@asynccontextmanager
async def client(made: Fleet, balancer: Process) -> AsyncGenerator[Client]:
    """Ask a balancer for the length of the block."""
    async with made.asking(f"http://{balancer.host.address}:8080") as session:
        yield Client(session)
