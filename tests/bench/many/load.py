"""Chats for many models, at a number at once: `python -m tests.bench.many.load`.

Arguments: PORT REQUESTS AT_ONCE. Prompts have 1 to 8 KB and share system prompts; every
second one goes on with an earlier conversation. Prints how many were answered, and the
seconds that the answers took, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter

import uvloop

from tests.bench.routing.decide import body

ASKED = 7
"""So many models are asked for; three nodes have them all."""

rng = random.Random(1)  # noqa: S311 - a benchmark


def chats(count: int) -> list[bytes]:
    """Return the bodies; a share of them goes on with others."""
    found: list[bytes] = []
    for number in range(count):
        words = f"chat {number // 2}"
        size = rng.randrange(1024, 5000) * (1 + number % 2)
        chat = json.loads(body(min(size, 8192), number // 2 % 4, words))
        chat |= {"model": f"model-{number // 2 % ASKED}", "max_tokens": 8}
        found.append(json.dumps(chat).encode())
    return found


async def worker(
    port: int, left: list[bytes], took: list[float], seen: Counter[str]
) -> None:
    """Ask one after the other over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while left:
        chat = left.pop()
        began = time.perf_counter()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(chat) + chat)
        answer = await reader.readuntil(b"\r\n\r\n")
        at = answer.lower().index(b"content-length:") + 15
        said = await reader.readexactly(int(answer[at:].split(b"\r\n", 1)[0]))
        took.append(time.perf_counter() - began)
        status = answer[9:12].decode()
        seen[status if status == "200" else f"{status} {said.decode()[:300]}"] += 1
    writer.close()


async def main(port: int, requests: int, at_once: int) -> None:
    """Run the load and print what came of it."""
    left, took, seen = chats(requests), list[float](), Counter[str]()
    left.reverse()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker(port, left, took, seen))
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "took": took, "seen": seen}))


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:4])))
