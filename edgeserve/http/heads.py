"""Message heads: reads and writes the heads of requests and responses. Pure.

llhttp refuses what serves request smuggling: Content-Length beside Transfer-Encoding,
repeated lengths, folded lines, bare line feeds, blanks before a colon. What else is
ambiguous is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote

import httptools

from edgeserve.errors import BadRequest, UnknownRoute, UriTooLong
from edgeserve.http.framing import Chunked, Framing, Length, UntilClosed

HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "transfer-encoding", "te", "upgrade", "trailer",
     "proxy-connection", "proxy-authorization", "proxy-authenticate", "content-length",
     "host", "expect", "date", "server")
)  # fmt: skip
"""Header fields that belong to one connection and are never passed on."""

NOT_NAMED = frozenset(
    ("host", "content-length", "transfer-encoding", "expect",
     "content-type", "content-encoding", "authorization", "x-api-key", "cookie",
     "origin", "retry-after")
)  # fmt: skip
"""Fields that are used here: `Connection` cannot name them for removal."""

OURS = "x-edgeserve-"

TARGET_BYTES = 32_000
"""Longest target of a request. llama.cpp accepts a request line of 32 KiB."""

END = b"\r\n\r\n"
"""The end of a head."""

MOST_FIELDS = 128
"""Most header fields of one message; it bounds the cost of reading a head."""

BODILESS = frozenset((204, 304))
"""Statuses whose answers never have a body."""


class Head(NamedTuple):
    """A request's head. `length` is in bytes, None where the body is chunked."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    length: int | None
    keep_alive: bool
    old: bool
    """Whether this is HTTP/1.0, which has no chunks."""

    @property
    def expects(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body."""
        expect = self.headers.get("expect", "")
        return expect.lower() == "100-continue" and not self.old


ANY = Head("GET", "/", "", {}, 0, False, False)
"""The head assumed for a request that could not be read."""


class _Fields:
    """Collects what llhttp finds in one head."""

    __slots__ = ("complete", "headers", "more", "repeated", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: dict[str, str] = {}
        self.repeated: set[str] = set()
        self.complete = self.more = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = _USUAL.get(name) or name.decode().lower()
        text = value.decode("utf-8", "surrogateescape")
        if key in self.headers:
            self.repeated.add(key)
            text = f"{self.headers[key]}{'; ' if key == 'cookie' else ', '}{text}"
        self.headers[key] = text

    def on_headers_complete(self) -> None:
        self.more = self.complete
        self.complete = True


_USUAL = {
    spelling.encode(): name
    for name in (
        "accept", "accept-encoding", "accept-language", "authorization",
        "connection", "content-length", "content-type", "cookie", "host", "origin",
        "transfer-encoding", "user-agent",
    )
    for spelling in (name, name.title())
}  # fmt: skip
"""Names that most requests have: a lookup is faster than decode and lower."""


def read_request(raw: bytes) -> Head:
    """Read one head, blank line included, or raise BadRequest."""
    if raw.count(b"\n") > MOST_FIELDS + 2:
        raise BadRequest(f"a request may have {MOST_FIELDS} header fields at most")
    fields = _Fields()
    parser = httptools.HttpRequestParser(fields)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # an upgrade may be ignored; CONNECT is refused with its target below
    except httptools.HttpParserError as error:
        raise BadRequest(f"this is not HTTP/1.1: {error}") from error
    if not fields.complete or fields.more:
        raise BadRequest("this is not HTTP/1.1: the head does not end where it says")
    line = raw[: raw.index(b"\r\n")]
    old = line.endswith(b" HTTP/1.0")
    if not old and not line.endswith(b" HTTP/1.1"):
        raise BadRequest("only HTTP/1.1 and HTTP/1.0 are supported")
    headers = fields.headers
    if "host" in fields.repeated or not ("host" in headers or old):
        raise BadRequest("a request needs exactly one Host header")
    path, query = _split(fields.target)
    connection = for_this_connection(headers)
    keep = "keep-alive" in connection if old else "close" not in connection
    length = _length(headers, old)
    return Head(parser.get_method().decode(), path, query, headers, length, keep, old)


def _split(target: bytes) -> tuple[str, str]:
    """Split a target at its question mark; drop the origin of an absolute one."""
    if len(target) > TARGET_BYTES:
        raise UriTooLong(TARGET_BYTES)
    if b"%" in target and _CONTROL.search(target):
        raise BadRequest("a path or query cannot hold control characters, such as %0a")
    text = target.decode("ascii", "replace")
    if not text.startswith("/") and text != "*":
        scheme, _, rest = text.partition("://")
        if scheme.lower() not in {"http", "https"}:
            raise BadRequest(f"{text!r} is not a path")
        text = "/" + rest.partition("/")[2]
    path, _, query = text.partition("#")[0].partition("?")
    return path, query


def _length(headers: Mapping[str, str], old: bool) -> int | None:
    coding = headers.get("transfer-encoding")
    if coding is None:
        return int(headers.get("content-length", 0))
    if coding.lower() != "chunked" or old:
        raise BadRequest(f"a body cannot come as Transfer-Encoding {coding!r} here")
    return None


def routed(head: Head, handled: Callable[[str], bool]) -> tuple[Head, bool]:
    """Return the head, and whether `handled` takes its path, percent-encoded or not."""
    path = head.path
    if handled(path):
        return head, True
    if "%" in path and handled(plain := unquote(path)):
        return head._replace(path=plain), True
    if not path.startswith("/"):
        raise UnknownRoute(head.method, path, "a path begins with `/`")
    return head, False


def for_this_connection(headers: dict[str, str]) -> str:
    """Remove `Connection` and the fields that it names; return it in lower case.

    This is done where a message is read, so that it cannot name a field added later.
    """
    connection = headers.pop("connection", "").lower()
    if connection not in {"", "keep-alive", "close"}:
        for each in connection.split(","):
            name = each.strip()
            if name not in NOT_NAMED and not name.startswith(OURS):
                headers.pop(name, None)
    return connection


def check_beginning(data: bytes) -> None:
    """Raise BadRequest where the first bytes cannot begin a head.

    A client of another protocol may wait for an answer without an end.
    """
    line, ended, _ = data.partition(b"\n")
    if not (_LINE if ended else _BEGINNING).fullmatch(line):
        raise BadRequest("this is not HTTP/1.1")


_LINE = re.compile(rb"[A-Z-]{1,24} [^\r]+ HTTP/1\.[01]\r")
_BEGINNING = re.compile(rb"[A-Z-]{1,24}(?: [^\r]*\r?)?")
_CONTROL = re.compile(rb"%(?:[01][0-9A-Fa-f]|7[Ff])")


def fields(headers: Mapping[str, str]) -> list[str]:
    """Render the header fields that may travel, one line each.

    Names are in lower case, as both readers of heads give them.
    """
    named = headers.get("connection")
    dropped = HOP_BY_HOP
    if named is not None and named not in {"keep-alive", "close", "Keep-Alive"}:
        dropped = dropped.union(each.strip().lower() for each in named.split(","))
    return [
        f"{name}: {value}" for name, value in headers.items() if name not in dropped
    ]


def written(lines: list[str]) -> bytes:
    """Join lines to a head. Raises ValueError for a value that holds a line break."""
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise ValueError("a header value holds a line break")
    return text.encode("utf-8", "surrogateescape") + END


STATUS_LINES = {
    each.value: f"HTTP/1.1 {each.value} {each.phrase}" for each in HTTPStatus
}


def status_line(status: int) -> str:
    """Render an answer's first line."""
    return STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown"


class AnswerHead(NamedTuple):
    """Status, header fields (names in lower case) and how the body is framed."""

    status: int
    headers: dict[str, str]
    framing: Framing
    keeps: bool
    """Whether the server will take another request on this connection."""


def read_answer(raw: bytes, method: str) -> AnswerHead:
    """Read one head, without the blank line, of the answer to a request with `method`.

    Raises BadRequest where it is malformed.
    """
    text = raw.decode("utf-8", "surrogateescape")
    first, _, rest = text.partition("\r\n")
    status, old = _status(first)
    lines = text.count("\r\n")
    if lines > MOST_FIELDS or text.count("\n") != lines:
        raise BadRequest("the answer's head has too many lines, or bare line feeds")
    headers = _fields(rest)
    connection = for_this_connection(headers)
    keeps = "keep-alive" in connection if old else "close" not in connection
    if method == "HEAD" or status in BODILESS or status < 200:
        return AnswerHead(status, headers, Length(0), keeps)
    framing = _framing(headers)
    return AnswerHead(status, headers, framing, keeps)


@lru_cache(64)
def _status(line: str) -> tuple[int, bool]:
    """Return the status, and whether it is of HTTP/1.0."""
    found = _STATUS.fullmatch(line)
    if found is None:
        raise BadRequest(f"{line[:80]!r} is not a status line of HTTP/1.1")
    return int(found[2]), found[1] == "0"


def _fields(text: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    if not text:
        return headers
    for line in text.split("\r\n"):
        key, value = _field(line)
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


@lru_cache(1024)  # most fields of a server are the same in each answer
def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    key = name.lower()
    if not colon or not _NAME.fullmatch(key):
        raise BadRequest(f"{line[:80]!r} is not a header field")
    return key, value.strip(" \t")


def _framing(headers: dict[str, str]) -> Framing:
    coding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or length is not None:
            raise BadRequest("the answer's length is ambiguous")
        return Chunked(slack=float("inf"))  # engines stream small pieces for hours
    if length is None:
        return UntilClosed()
    if not (length.isascii() and length.isdecimal()):
        raise BadRequest(f"{length[:80]!r} is not a length")
    return Length(int(length))


_STATUS = re.compile(r"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: .*)?")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")

JOINED = 65536
"""Bodies up to so many bytes are written together with their head, which is cheaper."""
