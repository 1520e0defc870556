"""Requests that no client means well: each is answered, as what it is: a wrong one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from tests.edgeserve.http.talk import Got, connected

VALUES = (
    "", " ", "0", "-1", "1.5", "1e999", "nan", "inf", "0x10", "null", "9" * 400,
    "9" * 5000, "\xff", "\xc3\xa9", "\xc2\xb2", "\xed\xa0\x80", "http://[", ",;=,",
    "Bearer ", "Bearer \xff", "bearer \xed\xa0\x80 x",
)  # fmt: skip

NAMES = (
    "authorization", "x-api-key", "origin", "access-control-request-method", "cookie",
    "x-edgeserve-deadline-ms", "x-edgeserve-min-quality", "x-edgeserve-request-id",
    "x-edgeserve-variant", "x-session-id", "connection", "content-type", "accept",
    "content-encoding", "range", "te", "upgrade", "expect", "keep-alive",
    "if-modified-since", "x-forwarded-for", "user-agent",
)  # fmt: skip
"""What we, aiohttp or llama.cpp may look at."""

ENDINGS = (
    "/%00", "/%0d%0aX:%20y", "/%ff", "/%ed%a0%80", "/%zz%", "/..%2f..", "//", "/%",
    "?a=%0d%0aSet-Cookie:%20b", "?a=%00", "?a=%ff&%zz", "?" + "a" * 20_000,
    "?" + "a" * 60_000, "#a", "/" + "a" * 20_000,
)  # fmt: skip

TARGETS = (
    "*", "?", "http://[::1", "http://a:99999999/health", "http:///health", "//health",
    "https://a/health", "/" + "%41" * 9000,
)  # fmt: skip

BODIES = (
    b"", b"{", b"null", b"[]", b"1e999", b"-", b"\xff", b"[" * 50_000, b'{"a":' * 9_000,
    b'"\\ud800"', b'{"url":null}', b'{"url":1e999}', b'{"url":"http://[::1"}',
    b'{"url":"http://a:99999"}', b'{"url":"http://a\\r\\nb:1"}', b'{"url":"http://:1"}',
    b'{"url":"http://\\u0000:1"}', b'{"url":"http://' + b"a" * 90_000 + b':1"}',
    b'{"url":"file:///etc"}', b'{"url":"http://\xe2\x84\xa6:1"}', b'\xef\xbb\xbf{}',
    b'{"model":"\\u0000","stream":9}', b'{"model":{},"n":-1}',
    b'{"model":"a","n":1e99}',
)  # fmt: skip


def request(method: str, target: str, extra: str = "", body: bytes = b"") -> bytes:
    """Build a request, whatever stands in it."""
    length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{length}{extra}\r\n"
    return head.encode("latin-1") + body


def odd(method: str, path: str) -> Iterator[bytes]:
    """List the odd requests for one route."""
    for name in NAMES:
        for value in VALUES:
            yield request(method, path, f"{name}: {value}\r\n")
    for ending in ENDINGS:
        yield request(method, path + ending)
    yield request(method, path, "X: " + "a" * 10_000 + "\r\n")
    yield request(method, path, "X: " + "a" * 70_000 + "\r\n")
    yield request(method, path, "X: y\r\n" * 110)
    if method == "POST":
        for body in BODIES:
            yield request(method, path, body=body)


async def answers(port: int, requests: Iterable[bytes]) -> list[str]:
    """Ask each on a connection of its own; return those with an unfit answer."""
    unfit: list[str] = []
    for each in requests:
        async with connected(port) as client:
            client.say(each)
            got = await client.answer()
        if got.status == 100 or not fit(got):
            unfit.append(f"{each[:90]!r} → {got.status} {got.body[:90]!r}")
    return unfit


def fit(got: Got) -> bool:
    """Whether it is an answer, or blames the client in OpenAI's shape."""
    if got.status < 400:
        return True
    try:
        error = json.loads(got.body)["error"]
    except (ValueError, KeyError):
        return False
    return got.status < 500 and bool(error["message"]) and "code" in error
