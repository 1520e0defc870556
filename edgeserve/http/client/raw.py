"""Raw client streams: a request whose connection carries raw bytes afterwards."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Protocol

import msgspec

from edgeserve.errors import BadRequest, NodeLost, in_words
from edgeserve.http.client.connection import HEAD_BYTES, UpstreamConnection
from edgeserve.http.heads import END, read_answer, written
from edgeserve.http.raw import PROTOCOL, RawStream
from edgeserve.http.types import Origin

REFUSAL_BYTES = 65536
"""Most bytes that are read of an answer that refuses."""


class Connecting(Protocol):
    """Opens connections; to nodes, through the fleet channel."""

    async def connect(self, origin: Origin) -> UpstreamConnection:
        """Open one. Raises NotReached."""
        ...


@asynccontextmanager
async def raw_stream(
    nodes: Connecting, origin: Origin, target: str, body: bytes
) -> AsyncGenerator[RawStream]:
    """Send a request, and use its connection for raw bytes after the answer 101.

    The connection ends with the block. Raises NodeLost where there is none, with the
    sentence of an answer that refuses.
    """
    connection = await nodes.connect(origin)
    stream = RawStream.taken(connection.transport, connection)
    try:
        host = origin.url.partition("://")[2]
        stream.write(
            written(
                [
                    f"POST {target} HTTP/1.1",
                    f"host: {host}",
                    f"content-length: {len(body)}",
                    "connection: upgrade",
                    f"upgrade: {PROTOCOL}",
                ]
            )
            + body
        )
        await _upgraded(origin, stream)
        yield stream
    finally:
        stream.abort()


async def _upgraded(origin: Origin, stream: RawStream) -> None:
    """Read the answer's head. Raises NodeLost."""
    try:
        raw = await stream.until(END, HEAD_BYTES)
        head = read_answer(raw.removesuffix(END), "POST")
        if head.status == HTTPStatus.SWITCHING_PROTOCOLS:
            return
        length = min(int(head.headers.get("content-length", "0")), REFUSAL_BYTES)
        why = _sentence(await stream.exactly(length))
    except (BadRequest, ConnectionError, ValueError) as error:
        raise NodeLost(f"{origin.url} did not answer: {in_words(error)}") from error
    raise NodeLost(why or f"{origin.url} answers {head.status}")


def _sentence(body: bytes) -> str:
    """Return the message of an error's envelope, "" where there is none."""
    with suppress(msgspec.DecodeError, LookupError, TypeError):
        return str(msgspec.json.decode(body)["error"]["message"])
    return ""
