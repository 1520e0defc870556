"""Files: gives other nodes of the fleet the models and saved states that they ask for.

Not by aiohttp, which answers one request a connection: a copy asks for many pieces.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from http import HTTPStatus
from pathlib import Path

from edgeserve.errors import EdgeserveError, WrongMethod
from edgeserve.http.types import Handler, Request, Response
from edgeserve.orders.pulls import FILES, PIECE
from edgeserve.security.tokens import Guard
from node.pulls.shared import FileReader

BEGIN = f"{FILES}/"
"""What the paths of files begin with; their SHA-256 follows."""

HEADERS = {"content-type": "application/octet-stream", "accept-ranges": "bytes"}


FindFile = Callable[[str], Path | None]
"""Returns the file of a SHA-256, if there is one."""


class NoSuchFile(EdgeserveError):
    """The node has no file of that content."""

    status = 404
    code = "file_not_found"


class OutOfRange(EdgeserveError):
    """The file has no such range."""

    status = 416
    code = "range_not_satisfiable"


class FileHandler:
    """Answers for files, and leaves all other requests to another handler."""

    def __init__(
        self, find: Sequence[FindFile], guard: Guard, otherwise: Handler
    ) -> None:
        self._find = find
        self._guard = guard
        self._otherwise = otherwise

    async def __call__(self, request: Request, reply: Response) -> None:
        """Send a file or a range of it. The request names its content, not a path."""
        if not request.path.startswith(BEGIN):
            await self._otherwise(request, reply)
            return
        self._guard.check(request.headers)
        if request.method != "GET":
            raise WrongMethod(request.method, request.path, ["GET"])
        sha256 = request.path.removeprefix(BEGIN)
        path = next((path for find in self._find if (path := find(sha256))), None)
        if path is None:
            raise NoSuchFile("this node has no file of that content now")
        try:
            reader = FileReader(path)
        except OSError as error:
            raise NoSuchFile(f"cannot read the file: {error.strerror}") from error
        with closing(reader):
            await _send(reader, path, request.headers.get("range", ""), reply)


async def _send(reader: FileReader, path: Path, asked: str, reply: Response) -> None:
    first, count = range_of(asked, reader.size)
    if asked and count <= PIECE:
        data = await _read(reader, path, first, count)
        span = f"bytes {first}-{first + count - 1}/{reader.size}"
        headers = {**HEADERS, "content-range": span}
        await reply.send(HTTPStatus.PARTIAL_CONTENT, headers, data)
        return
    await reply.start(HTTPStatus.OK, HEADERS)
    for at in range(0, reader.size, PIECE):
        count = min(PIECE, reader.size - at)
        await reply.write(await _read(reader, path, at, count))
    await reply.finish()


async def _read(reader: FileReader, path: Path, first: int, count: int) -> bytes:
    try:
        data = await asyncio.to_thread(reader.read, first, count)
    except OSError as error:
        raise NoSuchFile(f"cannot read the file: {error.strerror}") from error
    if len(data) != count:
        raise NoSuchFile(f"{path.name} became shorter")
    return data


def range_of(asked: str, size: int) -> tuple[int, int]:
    """Return where a range begins and its length; all where none is asked for. Pure.

    Raises OutOfRange.
    """
    found = re.fullmatch(r"bytes=(\d{1,18})-(\d{0,18})", asked, re.ASCII)
    if found is None:
        return 0, size
    first = int(found[1])
    last = min(int(found[2] or size - 1), size - 1)
    if first > last:
        raise OutOfRange(f"the file has {size} bytes")
    return first, last - first + 1
