"""Many pretended nodes in one process: `python -m tests.bench.many.nodes`.

Arguments: FIRST COUNT SLOTS.

Each has a port of its own, five engines, and an event stream as a real node's: changes
of an engine at most every 50 ms, a heartbeat each second. With `stir` on its standard
input the machines' readings begin to change notably, every five seconds; `hush` breaks
every event stream.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
from collections.abc import Callable

import msgspec
import uvloop
from msgspec.structs import replace

from edgeserve.http.sse import write_event
from edgeserve.wire import EngineChange, EngineReport, NodeReport, encode
from tests.bench.proxy.upstream import JSON_HEAD, STREAM_HEAD, Connection, chunk
from tests.fakes.reports import HARDWARE, a_report, an_engine

ENGINES, MODELS = 5, 8
LABELS = ("Q4_0", "Q5_K_M", "Q8_0")
MERGED_SECONDS, SAMPLE_SECONDS = 0.05, 5.0
RATES = ((6e3, 1200), (15e3, 2e3), (40e3, 3500), (200e3, 9e3))
"""Tokens/s of reading and writing on four kinds of machines, which are a hundred times
as fast as real ones: so 10,000 requests are answered within a minute."""

ANSWER_TOKENS = 8
VARIANT = re.compile(rb"x-edgeserve-variant: ?([^\r]+)", re.IGNORECASE)
BUDGET = re.compile(rb'"(?:n_predict|max_tokens)": ?(\d+)')


def engines_of(number: int, slots: int) -> tuple[EngineReport, ...]:
    """Return the engines of one node: five of the models, in variants of its own."""
    names = [
        f"model-{(number + each) % MODELS}:{LABELS[(number // MODELS + each) % 3]}"
        for each in range(ENGINES)
    ]
    return tuple(
        an_engine(each, id=each.replace(":", "-"), slots=slots, context=8192, threads=1)
        for each in names
    )


class PretendedNode:
    """What one node says, and who listens."""

    def __init__(self, number: int, slots: int) -> None:
        self.report: NodeReport = a_report(
            *engines_of(number, slots), name=f"node-{number:03}"
        )
        self.rates = RATES[number % len(RATES)]
        self.streams = set[Speaker]()
        self.sent = 0
        self._stale = set[str]()
        self._timer: asyncio.TimerHandle | None = None

    def busier(self, variant: str, by: int) -> None:
        """Count a request on an engine, and say so soon."""
        found = tuple(
            replace(each, busy=each.busy + by) if each.variant == variant else each
            for each in self.report.engines
        )
        self.report = replace(self.report, engines=found)
        self._stale.add(variant)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(MERGED_SECONDS, self._say)

    def _say(self) -> None:
        self._timer = None
        stale, self._stale = self._stale, set()
        for each in self.report.engines:
            if each.variant in stale:
                self.send(write_event(encode(EngineChange(engine=each)), "engine"))

    def send(self, frame: bytes) -> None:
        """Send a frame to those who follow."""
        self.sent += len(frame) * len(self.streams)
        for each in self.streams:
            each.transport.write(chunk(frame))

    def warm(self) -> None:
        """Report another temperature and load."""
        thermal = replace(HARDWARE.thermal, celsius=random.uniform(30, 80))  # noqa: S311 - a benchmark
        hardware = replace(self.report.hardware, thermal=thermal)
        self.report = replace(self.report, hardware=hardware)
        for each in self.streams:
            frame = each.news(self.report)
            self.sent += len(frame)
            each.transport.write(chunk(frame))

    def timings(self, prompt: int, written: int) -> bytes:
        """Return what an engine of this machine would say that it took."""
        read, write = self.rates
        return msgspec.json.encode(
            {
                "cache_n": 0,
                "prompt_n": prompt,
                "prompt_ms": prompt / read * 1e3,
                "predicted_n": written,
                "predicted_ms": written / write * 1e3,
            }
        )


class Speaker(Connection):
    """One connection to a pretended node."""

    def __init__(self, node: PretendedNode) -> None:
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._changes = False

    def connection_lost(self, _: Exception | None) -> None:
        self._node.streams.discard(self)

    def news(self, report: NodeReport) -> bytes:
        """Return what a node sends when its hardware has changed."""
        if self._changes:
            return write_event(encode({"hardware": report.hardware}), "change")
        return write_event(encode(report), "report")

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /edgeserve/v1/events"):
            self._changes = head.startswith(b"GET /edgeserve/v1/events?changes")
            self._node.streams.add(self)
            frame = write_event(encode(self._node.report), "report")
            self._node.sent += len(frame)
            self.transport.write(STREAM_HEAD + chunk(frame))
            self._loop.call_later(random.random(), self._beat)  # noqa: S311 - spread
        elif head.startswith(b"POST"):
            self._work(head, body)
        else:
            self.transport.write(JSON_HEAD % 15 + b'{"status":"ok"}')

    def _work(self, head: bytes, body: bytes) -> None:
        found = VARIANT.search(head)
        variant = found[1].decode() if found else self._node.report.engines[0].variant
        budget = BUDGET.search(body)
        written = int(budget[1]) if budget else ANSWER_TOKENS
        prompt = max(1, len(body) // 4)
        read, write = self._node.rates
        self._node.busier(variant, 1)
        seconds = prompt / read + written / write
        chat = head.startswith(b"POST /v1/chat")
        args = (self._told(chat, prompt, written, streams(body)), variant)
        self._loop.call_later(seconds, self._done, *args)

    def _told(self, chat: bool, prompt: int, written: int, stream: bool) -> bytes:
        timings = self._node.timings(prompt, written)
        if not chat:
            body = b'{"content":"the the","stop":true,"timings":%b}' % timings
        elif stream:
            text = b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" word"}}],"created":1,"id":"c","model":"m","object":"chat.completion.chunk"}\n\n'  # noqa: E501 - one line in real life too
            last = b'data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],"created":1,"id":"c","model":"m","object":"chat.completion.chunk","timings":%b}\n\ndata: [DONE]\n\n'  # noqa: E501 - one line in real life too
            return STREAM_HEAD + chunk(text * written + last % timings) + b"0\r\n\r\n"
        else:
            body = b'{"choices":[{"finish_reason":"stop","index":0,"message":{"role":"assistant","content":"a word"}}],"created":1,"model":"m","object":"chat.completion","usage":{"completion_tokens":%d,"prompt_tokens":%d,"total_tokens":9},"id":"c","timings":%b}'  # noqa: E501 - one line in real life too
            body %= (written, prompt, timings)
        return JSON_HEAD % len(body) + body

    def _done(self, told: bytes, variant: str) -> None:
        self._node.busier(variant, -1)
        if not self.transport.is_closing():
            self.transport.write(told)

    def _beat(self) -> None:
        if not self.transport.is_closing() and self in self._node.streams:
            frame = write_event(b"{}", "heartbeat")
            self._node.sent += len(frame)
            self.transport.write(chunk(frame))
            self._loop.call_later(1, self._beat)


def streams(body: bytes) -> bool:
    """Whether a request asks for a stream."""
    return b'"stream":true' in body.replace(b" ", b"")


async def main(first: int, count: int, slots: int) -> None:
    """Serve, print the ports, and do as told until the input ends."""
    loop = asyncio.get_running_loop()
    nodes: list[PretendedNode] = []
    ports: list[int] = []
    for number in range(first, first + count):
        node = PretendedNode(number, slots)
        make: Callable[[], Speaker] = lambda node=node: Speaker(node)  # type: ignore[misc]  # noqa: E731 - bound now
        server = await loop.create_server(make, "127.0.0.1", 0, backlog=512)
        ports.append(server.sockets[0].getsockname()[1])
        node.report = replace(node.report, port=ports[-1])
        nodes.append(node)
    print(*ports, flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        match line.strip():
            case "stir":
                for each in nodes:
                    loop.call_later(random.random() * SAMPLE_SECONDS, _stir, each)  # noqa: S311 - spread
            case "hush":
                for each in nodes:
                    for stream in tuple(each.streams):
                        stream.transport.abort()
            case _:
                print(sum(each.sent for each in nodes), flush=True)


def _stir(node: PretendedNode) -> None:
    node.warm()
    asyncio.get_running_loop().call_later(SAMPLE_SECONDS, _stir, node)


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:4])))
