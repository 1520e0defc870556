"""A client of the fleet that is attacked: its prompts, and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.fleet.asking import Client, client
from tests.security.conftest import Town

PROMPT = "a-prompt-that-nobody-else-may-read"
CHAT = "/v1/chat/completions"
Json = dict[str, Any]


class User:
    """Sends prompts to a balancer, and counts the right answers."""

    def __init__(self, ask: Client) -> None:
        self.ask = ask
        self.session: aiohttp.ClientSession = ask.session

    async def prompt(self, tokens: int = 3) -> str:
        """Send one prompt; return the answer's text, or the error's."""
        body = chat(tokens)
        async with self.session.post(CHAT, json=body) as answer:
            found: Json = await answer.json()
            if answer.status != 200:
                return str(found)
            text: str = found["choices"][0]["message"]["content"]
            return text

    async def prompts(self, number: int) -> int:
        """Send some prompts at once; return how many got the right answer."""
        texts = await asyncio.gather(*(self.prompt() for _ in range(number)))
        return texts.count("w0 w1 w2")

    async def members(self) -> list[Json]:
        """List the fleet, with what was seen but has not answered."""
        async with self.session.get("/edgeserve/v1/nodes") as found:
            members: list[Json] = await found.json()
            return members

    async def problems(self) -> list[str]:
        """List what is wrong with what was seen."""
        return [str(each["problem"]) for each in await self.members()]


def chat(tokens: int, *, stream: bool = False) -> Json:
    """Build a request."""
    message = {"role": "user", "content": PROMPT}
    return {
        "model": "small",
        "messages": [message],
        "max_tokens": tokens,
        "stream": stream,
    }


@asynccontextmanager
async def a_user(town: Town) -> AsyncGenerator[User]:
    """Ask the balancer of a fleet whose node serves."""
    async with client(town.fleet, town.balancer) as ask:
        await ask.serving("attic")
        yield User(ask)
