"""Read the head of an upstream's answer, once. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from edgeserve.errors import BadRequest
from edgeserve.relay.framing import Chunked, Framing, Length, UntilClosed
from edgeserve.relay.head import BODILESS, MOST_FIELDS, for_this_connection


class AnswerHead(NamedTuple):
    """Status, header fields (names in lower case) and how the body is framed."""

    status: int
    headers: dict[str, str]
    framing: Framing
    keeps: bool
    """Whether the server will take another request on this connection."""


def read_answer(raw: bytes, asked: str) -> AnswerHead:
    """Read one head, without the blank line, of the answer to a request by `asked`.

    Raises BadRequest where it is malformed.
    """
    text = raw.decode("utf-8", "surrogateescape")
    first, _, rest = text.partition("\r\n")
    found = _STATUS.fullmatch(first)
    lines = text.count("\r\n")
    if found is None or lines > MOST_FIELDS or text.count("\n") != lines:
        raise BadRequest(f"{first[:80]!r} does not begin an answer of HTTP/1.1")
    headers = _fields(rest)
    status = int(found[2])
    connection = for_this_connection(headers)
    keeps = "close" not in connection if found[1] == "1" else "keep-alive" in connection
    if asked == "HEAD" or status in BODILESS or status < 200:
        return AnswerHead(status, headers, Length(0), keeps)
    framing = _framing(headers)
    return AnswerHead(status, headers, framing, keeps)


def _fields(text: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    if not text:
        return headers
    for line in text.split("\r\n"):
        key, value = _field(line)
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


@lru_cache(1024)  # a server says mostly the same, answer after answer
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
