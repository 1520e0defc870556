"""A pretend llama-server, and a pretend node, as cheap as Python makes them.

Usage: python -m tests.bench.proxy.upstream NAME PORT ENCRYPTED_PORT SLOTS

The second port speaks as a node with the fleet token `TOKEN` does.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import cast

import uvloop
from msgspec.structs import replace

from edgeserve.http import Limits, bind
from edgeserve.http.channel.accepting import Proving
from edgeserve.http.server.acceptor import accepting
from edgeserve.http.sse import write_event
from edgeserve.security.certificates import new_certificate, server_context
from edgeserve.wire import NodeReport, encode
from tests.fakes.reports import a_report, an_engine
from tests.fakes.tokens import TOKEN, GivenTokens

EVENTS_PER_SECOND = 20
SHORT = 16
"""Streams of so few tokens come at once: a balancer may stream a short chat to itself,
and the comparison is about what that costs, not about how fast a model speaks."""
BUDGET = re.compile(rb'"max_(?:completion_)?tokens":\s*(\d+)')
TEXT = b'{"choices":[{"finish_reason":"stop","index":0,"message":{"role":"assistant","content":"Hello there, how can I help?"}}],"created":1790000000,"model":"bench","system_fingerprint":"b11434","object":"chat.completion","usage":{"completion_tokens":8,"prompt_tokens":230,"total_tokens":238,"prompt_tokens_details":{"cached_tokens":0}},"id":"chatcmpl-0123456789abcdefghijklmnopqrstuv","timings":{"cache_n":0,"prompt_n":230,"prompt_ms":23.0,"prompt_per_token_ms":0.1,"prompt_per_second":10000.0,"predicted_n":8,"predicted_ms":8.0,"predicted_per_token_ms":1.0,"predicted_per_second":1000.0}}'  # noqa: E501 - one line in real life too
JSON_HEAD = b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: \r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"  # noqa: E501 - as llama-server sends it
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: \r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"  # noqa: E501 - as llama-server sends it
EVENT = b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" word"}}],"created":1790000000,"id":"chatcmpl-0123456789abcdefghijklmnopqrstuv","model":"bench","system_fingerprint":"b11434","object":"chat.completion.chunk","t":%d}\n\n'  # noqa: E501 - one line in real life too
LAST = b'data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],"created":1790000000,"id":"chatcmpl-0123456789abcdefghijklmnopqrstuv","model":"bench","object":"chat.completion.chunk"}\n\ndata: [DONE]\n\n'  # noqa: E501 - one line in real life too


def whole(body: bytes) -> bytes:
    return JSON_HEAD % len(body) + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


ANSWER = whole(TEXT)


class Connection(asyncio.Protocol):
    """One connection of a client that sends one whole request after another."""

    transport: asyncio.Transport
    _buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        head = data[: max(end, 0)].lower()
        at = head.find(b"\r\ncontent-length:")
        length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at > 0 else 0
        if end < 0 or len(data) < end + 4 + length:
            self._buffer = data
            return
        self._buffer = b""
        self._answer(data[: end + 4], data[end + 4 :])

    def _answer(self, head: bytes, body: bytes) -> None:
        raise NotImplementedError


class Speaker(Connection):
    """Answers on one connection: chats whole or streamed, and what routers probe."""

    def __init__(self, report: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self._report = report
        self._loop = loop
        self._left = 0

    def _answer(self, head: bytes, body: bytes) -> None:
        if b'"stream":true' in body.replace(b" ", b""):
            self.transport.write(STREAM_HEAD)
            found = BUDGET.search(body)
            self._left = int(found[1]) if found else SHORT
            self._event(paced=self._left > SHORT)
        elif head.startswith(b"POST"):
            self.transport.write(ANSWER)
        elif head.startswith(b"GET /edgeserve/v1/events"):
            self.transport.write(
                STREAM_HEAD + chunk(write_event(self._report, "report"))
            )
            self._beat()
        elif head.startswith((b"GET /v1/models", b"GET /models")):
            self.transport.write(whole(b'{"object":"list","data":[{"id":"bench"}]}'))
        else:
            self.transport.write(whole(b'{"status":"ok"}'))

    def _event(self, *, paced: bool = True) -> None:
        if self.transport.is_closing():
            return
        if self._left:
            self._left -= 1
            self.transport.write(chunk(EVENT % time.monotonic_ns()))
            if paced:
                self._loop.call_later(1 / EVENTS_PER_SECOND, self._event)
            else:
                self._event(paced=False)
        else:
            self.transport.write(chunk(LAST) + b"0\r\n\r\n")

    def _beat(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(chunk(write_event(b"{}", "heartbeat")))
            self._loop.call_later(1, self._beat)


def report(name: str, port: int, slots: int) -> NodeReport:
    """Say what a balancer wants to know, as a node with one fast engine would."""
    engine = an_engine(
        "bench:Q4_0", id="bench", slots=slots, context=8192, batch=512, threads=1
    )
    return a_report(engine, name=name, port=port)


async def main(name: str, port: int, encrypted: int, slots: int) -> None:
    loop = asyncio.get_running_loop()
    told = encode(report(name, port, slots))
    server = await loop.create_server(
        lambda: Speaker(told, loop), "127.0.0.1", port, backlog=4096
    )
    async with encrypted_port(name, encrypted, slots):
        await server.serve_forever()


def encrypted_port(
    name: str, port: int, slots: int
) -> AbstractAsyncContextManager[object]:
    """Speak as a node does that proves itself."""
    loop = asyncio.get_running_loop()
    certificate = new_certificate(name)
    context = server_context(certificate)
    told = encode(replace(report(name, port, slots), id=certificate.id))
    proving = Proving(GivenTokens(TOKEN), lambda: certificate.fingerprint)
    sock = bind("127.0.0.1", port)
    sock.listen(4096)
    made = partial(proving, lambda: Speaker(told, loop))
    return accepting(sock, made, lambda: context, Limits())


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], *map(int, sys.argv[2:])))
