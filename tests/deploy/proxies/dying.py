"""Two balancers in processes of their own, a client that asks again, and its count."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp
import httpx2
import openai
from openai.types.chat import ChatCompletionUserMessageParam

from node.engines.process import free_port
from tests.fakes.node import FakeNode
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[3]
NOTICES = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 3),
)
"""A machine without power closes no connection; OpenAI's own client asks after 60 s."""

HELLO: ChatCompletionUserMessageParam = {"role": "user", "content": "hello"}


@dataclass
class Process:
    """A balancer; `address` is `host:port`."""

    address: str
    running: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Ask it to finish what runs, and end."""
        self.running.terminate()

    def kill(self) -> None:
        """End it without a word."""
        self.running.kill()
        self.running.wait(PATIENCE)


@contextlib.contextmanager
def balancers(folder: Path, nodes: Sequence[FakeNode]) -> Generator[list[Process]]:
    """Run two that know the same nodes."""
    flags = [flag for each in nodes for flag in ("--node", each.url)]
    made = list[Process]()
    try:
        for number in range(2):
            home = folder / f"balancer-{number}"
            home.mkdir()
            port = free_port()
            argv = [sys.executable, "-m", "edgeserve", "balancer", "start"]
            argv += ["--no-discover", "--no-calibrate", "--port", str(port), *flags]
            env = {**os.environ, "PYTHONPATH": str(ROOT)}
            for kind in ("CONFIG", "STATE", "MODELS"):
                env[f"EDGESERVE_{kind}_DIR"] = str(home)
            with (home / "log").open("wb") as log:
                child = subprocess.Popen(argv, stdout=log, stderr=log, env=env)
            made.append(Process(f"127.0.0.1:{port}", child))
        yield made
    finally:
        for each in made:
            each.kill()


async def knowing(process: Process, nodes: int) -> None:
    """Wait until a balancer can use so many engines."""
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                url = f"http://{process.address}/health"
                async with session.get(url) as got:
                    if (await got.json())["engines"] == nodes:
                        return
            await asyncio.sleep(0.05)


@dataclass
class Count:
    """What became of the requests; `again` were streams that broke off."""

    answered: int = 0
    again: int = 0
    lost: list[str] = field(default_factory=list[str])
    words: set[str] = field(default_factory=set[str])

    def __str__(self) -> str:
        """Say it in a line."""
        return (
            f"{self.answered} answered, {self.again} streams asked for again,"
            f" {len(self.lost)} lost"
        )


@dataclass
class Clients:
    """Clients that ask all the time, by OpenAI's library, which retries twice."""

    client: openai.AsyncOpenAI
    count: Count = field(default_factory=Count)
    over: bool = False
    model: str = "small"

    async def ask(self, *, stream: bool) -> None:
        """Ask until `over`; a stream that breaks off is asked for once more."""
        while not self.over:
            try:
                text = await (self._streamed() if stream else self._whole())
            except openai.APIError as error:
                self.count.lost.append(repr(error))
            else:
                self.count.answered += 1
                self.count.words.add(text)

    async def _whole(self) -> str:
        got = await self.client.chat.completions.create(
            model=self.model, messages=[HELLO], max_tokens=20
        )
        return got.choices[0].message.content or ""

    async def _streamed(self) -> str:
        try:
            return await self._read()
        except (openai.APIError, BrokenOff):
            self.count.again += 1
            return await self._read()

    async def _read(self) -> str:
        stream = await self.client.chat.completions.create(
            model=self.model, messages=[HELLO], max_tokens=20, stream=True
        )
        text, ended = "", False
        try:
            async for event in stream:
                for choice in event.choices:
                    text += choice.delta.content or ""
                    ended = ended or choice.finish_reason is not None
        except httpx2.HTTPError as error:
            raise BrokenOff(repr(error)) from error
        if not ended:
            raise BrokenOff("no end")
        return text


class BrokenOff(Exception):
    """A stream had no end."""


@contextlib.asynccontextmanager
async def asking(
    url: str, trust: ssl.SSLContext | bool, clients: int, retries: int = 2
) -> AsyncGenerator[tuple[Clients, Callable[[int], bool]]]:
    """Have clients ask; yields them, and whether so many requests were answered."""
    transport = httpx2.AsyncHTTPTransport(verify=trust, socket_options=NOTICES)
    async with httpx2.AsyncClient(transport=transport, timeout=PATIENCE) as http:
        client = openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="none", http_client=http, max_retries=retries
        )
        made = Clients(client)
        async with asyncio.TaskGroup() as tasks:
            for number in range(clients):
                tasks.create_task(made.ask(stream=number % 2 == 0))
            yield made, lambda answered: made.count.answered >= answered
            made.over = True


async def count_for(
    url: str, clients: int, seconds: float, model: str, retries: int
) -> Count:
    """Ask so long."""
    async with asking(url, True, clients, retries) as (made, _):
        made.model = model
        await asyncio.sleep(seconds)
    return made.count


if __name__ == "__main__":
    url, clients, seconds, model, retries = sys.argv[1:]
    found = asyncio.run(
        count_for(url, int(clients), float(seconds), model, int(retries))
    )
    print(json.dumps(asdict(found), default=sorted))
