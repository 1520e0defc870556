"""What the contestants must carry: chats back to back, at a pace, and as streams."""

from __future__ import annotations

import asyncio
import functools
import re
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Authorization": "Bearer sk-0123456789abcdefghijklmnopqrstuvwxyz",
    "Content-Type": "application/json",
    "User-Agent": "OpenAI/Python 2.0.0",
}
PATH = "/v1/chat/completions"
PROMPT = "All work and no play makes Jack a dull boy. " * 20
LOST_SECONDS = 10.0


def chat(tokens: int, *, stream: bool = False) -> str:
    """Render a chat of about 1 KB, in the order in which clients send the fields."""
    streams = '"stream": true, ' if stream else ""
    said = f'[{{"role": "user", "content": "{PROMPT}"}}]'
    return f'{{"model": "bench", {streams}"messages": {said}, "max_tokens": {tokens}}}'


def request(port: int, body: str) -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{fields}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


@dataclass(frozen=True)
class Rate:
    """What wrk saw."""

    requests: int
    per_second: float
    errors: int


def back_to_back(port: int, connections: int, seconds: int, folder: Path) -> Rate:
    """Let wrk send the next chat as soon as the last is answered."""
    script = folder / "chat.lua"
    lines = [f'wrk.headers["{name}"]="{value}"' for name, value in HEADERS.items()]
    script.write_text("\n".join(['wrk.method="POST"', *lines, f"wrk.body='{chat(8)}'"]))
    said = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script),
         f"http://127.0.0.1:{port}{PATH}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    requests = int(_figure(r"(\d+) requests in", said))
    errors = int(_figure(r"Non-2xx or 3xx responses: (\d+)", said, "0"))
    return Rate(requests, float(_figure(r"Requests/sec:\s+([\d.]+)", said)), errors)


def _figure(pattern: str, text: str, default: str | None = None) -> str:
    found = re.search(pattern, text)
    if found is None and default is None:
        raise RuntimeError(f"wrk said something else: {text}")
    return found[1] if found else cast(str, default)


@dataclass(frozen=True)
class Spread:
    """Milliseconds, and how many."""

    count: int
    p50: float
    p99: float

    @classmethod
    def of(cls, nanoseconds: Sequence[int]) -> Spread:
        if len(nanoseconds) < 100:
            return cls(len(nanoseconds), float("nan"), float("nan"))
        cuts = statistics.quantiles(nanoseconds, n=100)
        return cls(len(nanoseconds), cuts[49] / 1e6, cuts[98] / 1e6)


class _Asker(asyncio.Protocol):
    """One connection that sends a chat when told, and times the answer."""

    transport: asyncio.Transport

    def __init__(self, idle: list[_Asker], took: list[int]) -> None:
        self._idle = idle
        self._took = took
        self._asked = 0
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._idle.append(self)

    def ask(self, raw: bytes) -> None:
        self._asked = time.monotonic_ns()
        self.transport.write(raw)

    def data_received(self, data: bytes) -> None:
        if not self._left:
            end = data.index(b"\r\n\r\n") + 4
            head = data[:end].lower()
            at = head.index(b"content-length:") + 15
            self._left = end + int(head[at:].split(b"\r\n", 1)[0])
        self._left -= len(data)
        if not self._left:
            self._took.append(time.monotonic_ns() - self._asked)
            self._idle.append(self)


async def at_a_pace(port: int, per_second: int, seconds: float) -> Spread:
    """Send chats at a pace of their own, whether or not the last is answered."""
    loop = asyncio.get_running_loop()
    idle: list[_Asker] = []
    took: list[int] = []
    raw = request(port, chat(8))
    askers = [
        (await loop.create_connection(lambda: _Asker(idle, took), "127.0.0.1", port))[1]
        for _ in range(32)
    ]
    start = loop.time()
    for turn in range(int(per_second * seconds)):
        await asyncio.sleep(max(0.0, start + turn / per_second - loop.time()))
        if idle:
            idle.pop(0).ask(raw)
    await asyncio.sleep(0.2)
    for asker in askers:
        asker.transport.abort()
    return Spread.of(took[50:])


@dataclass
class Streams:
    """What came of many streams at once."""

    events: int = 0
    broken: int = 0
    late: list[int] = field(default_factory=list[int])
    """Nanoseconds from the upstream's write to our read, of each event."""


class _Watcher(asyncio.Protocol):
    """One stream; notes each event's age when it arrives."""

    transport: asyncio.Transport

    def __init__(self, seen: Streams, done: asyncio.Future[None]) -> None:
        self._seen = seen
        self._done = done
        self._whole = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if self._rest:
            data, self._rest = self._rest + data, b""
        at = data.find(b'"t":')
        while at >= 0:
            end = data.find(b"}", at)
            if end < 0:
                self._rest = data[at:]
                break
            self._seen.late.append(now - int(data[at + 4 : end]))
            self._seen.events += 1
            at = data.find(b'"t":', end)
        if b"data: [DONE]" in data:
            self._whole = True
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._seen.broken += not self._whole
        if not self._done.done():
            self._done.set_result(None)


async def many_streams(
    port: int, streams: int, tokens: int, ramp: float, seen: Streams
) -> None:
    """Open streams over `ramp` seconds; return when all have ended."""
    loop = asyncio.get_running_loop()
    raw = request(port, chat(tokens, stream=True))
    waiting: list[asyncio.Future[None]] = []
    for _ in range(streams):
        done: asyncio.Future[None] = loop.create_future()
        _, watcher = await loop.create_connection(
            functools.partial(_Watcher, seen, done), "127.0.0.1", port
        )
        watcher.transport.write(raw)
        waiting.append(done)
        await asyncio.sleep(ramp / streams)
    await asyncio.wait(waiting, timeout=tokens / 20 * 2 + LOST_SECONDS)
