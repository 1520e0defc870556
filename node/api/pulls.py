"""Routes of pulls: order them, and give other nodes the files that they ask for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

from edgeserve.desired import FILES, PULLS, PullOrder
from edgeserve.errors import BadRequest, EdgeserveError
from edgeserve.http.server.aiohttp_routes import guarded, json_response
from edgeserve.security.tokens import Guard
from edgeserve.wire import decode
from node.pulls.jobs import PullJobs
from node.pulls.shared import FileReader, Library, Wanted

READ_BYTES = 2**20
WRITE_SECONDS = 30.0
"""How long who copies a file may take nothing of it."""


class NoSuchFile(EdgeserveError):
    """The node has no model file of that content."""

    status = 404
    code = "file_not_found"


class OutOfRange(EdgeserveError):
    """The file has no such range."""

    status = 416
    code = "range_not_satisfiable"


@dataclass(frozen=True)
class PullRoutes:
    """The routes; all require the fleet token."""

    jobs: PullJobs
    library: Library
    guard: Guard

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the routes."""
        check = self.guard.check
        return [
            web.get(PULLS, guarded(check, self.pulls)),
            web.post(PULLS, guarded(check, self.order)),
            web.delete(f"{PULLS}/{{id}}", guarded(check, self.cancel)),
            web.get(FILES, guarded(check, self.files)),
            web.get(f"{FILES}/{{sha256}}", guarded(check, self.file)),
        ]

    async def pulls(self, _: web.Request) -> web.Response:
        """List the pulls of this node."""
        return json_response(self.jobs.reports)

    async def order(self, request: web.Request) -> web.Response:
        """Begin a pull."""
        order = decode(await request.read(), PullOrder)
        return json_response(self.jobs.order(order), status=HTTPStatus.ACCEPTED)

    async def cancel(self, request: web.Request) -> web.Response:
        """Stop a pull; what has come is kept."""
        return json_response(self.jobs.cancel(request.match_info["id"]))

    async def files(self, request: web.Request) -> web.Response:
        """List model files, by content and size or by model if asked for."""
        size = request.query.get("size")
        if size is not None and not re.fullmatch("[0-9]{1,18}", size):
            raise BadRequest("size has to be a number of bytes")
        wanted = Wanted(
            content=request.query.get("content", ""),
            size=None if size is None else int(size),
            model=request.query.get("model", ""),
        )
        return json_response(await self.library.find(wanted))

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Send a file or a range of it. The request names its content, never a path."""
        path = self.library.path(request.match_info["sha256"])
        if path is None:
            raise NoSuchFile("this node has no model file of that content now")
        try:
            return await _sent(request, path)
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            raise NoSuchFile(f"cannot read the file: {error.strerror}") from error


async def _sent(request: web.Request, path: Path) -> web.StreamResponse:
    with closing(FileReader(path)) as reader:
        first, count, partial = _range(request.headers.get("range", ""), reader.size)
        response = web.StreamResponse(
            status=HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK,
            headers={
                "content-type": "application/octet-stream",
                "content-length": str(count),
                "accept-ranges": "bytes",
            },
        )
        if partial:
            span = f"bytes {first}-{first + count - 1}/{reader.size}"
            response.headers["content-range"] = span
        await response.prepare(request)
        end = first + count
        while first < end:
            size = min(READ_BYTES, end - first)
            data = await asyncio.to_thread(reader.read, first, size)
            if len(data) != size:
                raise ConnectionResetError("the file became shorter")
            async with asyncio.timeout(WRITE_SECONDS):
                await response.write(data)
            first += size
    return response


def _range(asked: str, size: int) -> tuple[int, int, bool]:
    """Return where to begin, how many bytes, and whether that was asked for."""
    found = re.fullmatch(r"bytes=(\d{1,18})-(\d{0,18})", asked)
    if found is None:
        return 0, size, False
    first = int(found[1])
    last = min(int(found[2] or size - 1), size - 1)
    if first > last:
        raise OutOfRange(f"the file has {size} bytes")
    return first, last - first + 1, True
