"""The relay alone: ask one of two servers, pass the answer on.

Usage: python -m tests.bench.proxy.bare fast|plain PORT UPSTREAM_PORT...
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
from collections.abc import Sequence

import uvloop

from edgeserve import http as fast
from edgeserve.http import Origin, Request, Response, Upstream, bind
from tests.fakes import aiohttp_relay


class Relay:
    """The handler."""

    def __init__(self, up: Upstream, ports: Sequence[int]) -> None:
        self._up = up
        self._turns = itertools.cycle([Origin("127.0.0.1", port) for port in ports])

    async def __call__(self, request: Request, reply: Response) -> None:
        async with self._up.ask(
            next(self._turns),
            request.method,
            request.target,
            request.headers,
            request.body,
        ) as answer:
            if "content-length" in answer.headers:
                body = await answer.read()
                await reply.send(answer.status, answer.headers, body)
                return
            await reply.start(answer.status, answer.headers)
            await answer.pump(reply, _unseen)
            await reply.finish()


def _unseen(_: bytes) -> None:
    pass


async def main(kind: str, port: int, upstreams: Sequence[int]) -> None:
    relay = fast if kind == "fast" else aiohttp_relay
    async with (
        relay.upstream(connect_seconds=2) as up,
        relay.listen(
            bind("127.0.0.1", port),
            Relay(up, upstreams),
            lambda path: path.startswith("/v1/"),
            [],
            body_limit=2**26,
        ),
    ):
        gc.collect()
        gc.freeze()
        await asyncio.Event().wait()


if __name__ == "__main__":
    own, *others = [int(each) for each in sys.argv[2:]]
    uvloop.run(main(sys.argv[1], own, others))
