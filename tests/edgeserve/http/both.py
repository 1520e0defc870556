"""The fast relay and the plain one, to be held to the same promises."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import ModuleType

import pytest
from aiohttp import web

from edgeserve import http as fast
from edgeserve.http import Handler, Origin, Request, Response, Upstream, bind
from tests.edgeserve.http.talk import MIB, echo, is_ours
from tests.fakes import aiohttp_relay

both = pytest.mark.parametrize(
    "kind", [pytest.param(fast, id="fast"), pytest.param(aiohttp_relay, id="plain")]
)


@asynccontextmanager
async def serving(kind: ModuleType, handler: Handler = echo) -> AsyncGenerator[int]:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="a page")

    async with kind.listen(
        bind("127.0.0.1", 0), handler, is_ours, [web.get("/ui", page)], body_limit=MIB
    ) as port:
        yield port


def relaying(up: Upstream, origin: Origin, seen: list[bytes] | None = None) -> Handler:
    """A handler that passes everything on, streaming."""

    async def handler(request: Request, reply: Response) -> None:
        async with up.ask(
            origin, request.method, request.target, request.headers, request.body
        ) as answer:
            await reply.start(answer.status, answer.headers)
            await answer.pump(reply, (seen if seen is not None else []).append)
            await reply.finish()

    return handler
