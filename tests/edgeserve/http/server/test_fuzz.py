"""Anything may come in on the port: the front stays up, and llhttp agrees with it.

Bounded here; `make fuzz` tries 10,000 inputs of each kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import NamedTuple

import httptools
from hypothesis import given
from hypothesis import strategies as st

from edgeserve.http import Handler, Limits, Request, Response
from edgeserve.http.server.connection import Connection
from edgeserve.http.server.context import Admit, Client
from edgeserve.http.server.limits import BodyMemory
from edgeserve.http.server.server import anyone
from tests.edgeserve.http.wire import Wire, sliced

Seen = list[tuple[str, str, bytes]]
"""Method, path and body of each request."""


class Site:
    """A port that answers every path and remembers what was asked."""

    def __init__(self) -> None:
        self.seen: Seen = []
        self.handler: Handler = self._answer
        self.handled: Callable[[str], bool] = lambda _: True
        self.limits = Limits(head_bytes=2048)
        self.admit: Admit = anyone
        self.check_host: Admit = anyone
        self.memory = BodyMemory(self.limits)
        self.body_limit = 4096
        self.leaving = False

    async def _answer(self, request: Request, reply: Response) -> None:
        self.seen.append((request.method, request.path, request.body))
        await reply.send(200, {}, b"fine")

    def arrived(self, client: Client) -> None: ...
    def departed(self, client: Client) -> None: ...
    def hand_over(self, client: Client, data: bytes) -> None: ...


class Heard(NamedTuple):
    """The requests understood, the statuses answered, whether the end was closed."""

    seen: Seen
    statuses: list[int]
    closed: bool


async def heard(pieces: list[bytes]) -> Heard:
    """Send the pieces to a fresh connection."""
    site, wire = Site(), Wire()
    connection = Connection(site, asyncio.get_running_loop())
    connection.connection_made(wire)
    for piece in pieces:
        if wire.closed:
            break
        connection.data_received(piece)
        while connection.task is not None:
            await connection.task
    connection.connection_lost(None)
    statuses = [int(each) for each in re.findall(rb"HTTP/1\.1 (\d+)", wire.written)]
    final = [each for each in statuses if each != 100]  # 100 depends on the slices
    return Heard(site.seen, final, wire.closed)


class Reference:
    """What llhttp alone makes of a whole conversation."""

    def __init__(self) -> None:
        self.seen: Seen = []
        self._parser = httptools.HttpRequestParser(self)
        self._target = self._body = b""

    def on_message_begin(self) -> None:
        self._target = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        target = self._target.decode().removeprefix("http://a")
        path = target.partition("#")[0].partition("?")[0]
        self.seen.append((self._parser.get_method().decode(), path, self._body))

    def reads(self, data: bytes) -> Seen:
        with contextlib.suppress(
            httptools.HttpParserError, httptools.HttpParserUpgrade
        ):
            self._parser.feed_data(data)
        return self.seen


def some(text: str) -> st.SearchStrategy[str]:
    """One of the words of a text, in which `~` is a blank and `_` nothing."""
    words = text.encode().decode("unicode_escape").split()
    return st.sampled_from([each.replace("~", " ").replace("_", "") for each in words])


METHODS = some("GET POST PUT HEAD OPTIONS DELETE get _")
TARGETS = some(r"/v1/x / /a?b=c * /%2e%2e/ //x /a~b /\x80 http://a/b http: /a#b")
VERSIONS = some("HTTP/1.1 " * 8 + "HTTP/1.0 HTTP/1.2 HTTP/0.9 X/1.1 HTTP/2.0")
ENDS = st.sampled_from(["\r\n"] * 12 + ["\n", "\r", "\r\n ", "\r\n\t", ""])
NAMES = some(
    "Host Content-Length Content-Length Transfer-Encoding Transfer-Encoding Connection"
    " Expect X Cookie Upgrade content-length~ Transfer-Encoding~ Content~Length _"
)
VALUES = some(
    "a 0 3 5 5,~5 -1 chunked chunked Chunked chunked,~chunked gzip close keep-alive"
    r" 100-continue websocket x\x00y \x7fchunked 99999 _ http://a"
)
BODIES = st.sampled_from(
    [
        "",
        "abc",
        "hello",
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "3\r\nabc\r\n",
        "5\nhello",
        "5;a=b\r\nhello\r\n0\r\nT: x\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "ffffffffff\r\n",
        "GET /v1/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> str:
    """Something like a request: most parts right, some wrong."""
    end = draw(ENDS)
    lines = [f"{draw(METHODS)} {draw(TARGETS)} {draw(VERSIONS)}{end}"]
    if draw(st.integers(0, 9)):
        lines.append("Host: a\r\n")
    lines.extend(
        f"{draw(NAMES)}: {draw(VALUES)}{draw(ENDS)}"
        for _ in range(draw(st.integers(0, 3)))
    )
    return "".join([*lines, draw(ENDS), draw(BODIES)])


@st.composite
def sane(draw: st.DrawFn) -> str:
    """A request that is right, in one of the ways to frame it."""
    body = draw(st.text("abc\r\n0", max_size=12))
    head = f"{draw(st.sampled_from(['POST', 'PUT']))} /v1/x HTTP/1.1\r\nHost: a\r\n"
    if draw(st.booleans()):
        return f"{head}Content-Length: {len(body)}\r\n\r\n{body}"
    chunk = f"{len(body):x}\r\n{body}\r\n" if body else ""
    return f"{head}Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"


conversations = st.lists(st.one_of(requests(), sane(), sane()), max_size=4).map(
    lambda texts: "".join(texts).encode("latin-1")
)
anything = st.one_of(conversations, st.binary(max_size=300))
cuts = st.lists(st.integers(1, 40), max_size=30)


@given(data=anything, sizes=cuts)
def test_whatever_comes_in_is_answered_or_refused_alike_in_any_slices(
    data: bytes, sizes: list[int]
) -> None:
    async def both() -> tuple[Heard, Heard]:
        return await heard([data]), await heard(sliced(data, sizes))

    with asyncio.Runner() as runner:
        whole, cut = runner.run(both())

    assert whole.seen == cut.seen
    assert whole.closed == cut.closed
    assert whole.statuses == cut.statuses
    assert all(status in {200, 400, 413, 431} for status in whole.statuses)
    assert whole.statuses.count(200) == len(whole.seen)


@given(data=conversations)
def test_no_request_is_understood_that_llhttp_does_not_see_the_same(
    data: bytes,
) -> None:
    with asyncio.Runner() as runner:
        ours = runner.run(heard([data])).seen

    assert ours == Reference().reads(data)[: len(ours)]
