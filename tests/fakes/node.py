"""A fake node, in this process: report, event stream, and a relay to a fake engine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from aiohttp import web

from edgeserve import http
from edgeserve.errors import EdgeserveError, FleetBusy, NodeLost
from edgeserve.http.channel.accepting import Proving
from edgeserve.http.server.aiohttp_routes import json_response
from edgeserve.http.sse import write_event
from edgeserve.http.types import Origin, Request, Response, origin_of
from edgeserve.openai import ROUTES
from edgeserve.orders.log import LOG, LogLine, since
from edgeserve.orders.waiting import WAITING, WaitingRequests
from edgeserve.security.certificates import (
    Certificate,
    new_certificate,
    server_context,
)
from edgeserve.security.tokens import FleetTokens
from edgeserve.wire import (
    VARIANT_HEADER,
    EngineChange,
    EngineReport,
    NodeReport,
    decode,
    encode,
)
from tests.fakes import aiohttp_relay
from tests.fakes.llama import Behaviour, FakeLlama, fake_llama
from tests.fakes.node_files import FakeFiles
from tests.fakes.node_groups import FakeGroups
from tests.fakes.node_loads import FakeLoads
from tests.fakes.reports import HARDWARE as HARDWARE
from tests.fakes.reports import a_report, an_engine

HEARTBEAT_SECONDS = 0.1


@dataclass
class FakeNode:
    """A running fake. Tests may change what it reports, and how it behaves.

    `refuse` is raised instead of relaying, as long as it is set. `script` is played
    instead of the engine's answers, one stream a request; one that lacks its end is
    broken off. `told` counts the requests that came for an engine; an answer's end
    comes after its last byte by `lingers` seconds. `loads` takes orders to load and
    unload engines, `files` those to pull and remove models, `groups` those about
    groups. `kept` is its log; None in a node that has none to show. `waits` is what
    balancers said of waiting requests; None in a node that knows none.
    """

    name: str
    llama: FakeLlama
    report: NodeReport
    refuse: EdgeserveError | None = None
    admits: bool = True
    frozen: bool = False
    lingers: float = 0.0
    script: list[tuple[bytes, Literal["whole", "broken"]]] = field(default_factory=list)
    told: list[Request] = field(default_factory=list[Request])
    kept: list[LogLine] | None = field(default_factory=list[LogLine])
    waits: list[WaitingRequests] | None = field(default_factory=list[WaitingRequests])
    origin: Origin = Origin("127.0.0.1", 0)
    _followers: set[asyncio.Queue[bytes | None]] = field(
        default_factory=set[asyncio.Queue[bytes | None]]
    )
    _kill: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.loads = FakeLoads(self)
        self.files = FakeFiles(self)
        self.groups = FakeGroups(self)

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.origin.url

    @property
    def engine(self) -> EngineReport:
        """Its first engine."""
        return self.report.engines[0]

    def say(self, report: NodeReport | None = None, **engine: Any) -> None:
        """Send a full report; or change its one engine, and send that."""
        if report is not None:
            self.report = report
            self.send(write_event(encode(report), "report"))
            return
        self.change(self.engine.id, **engine)

    def find(self, id_: str) -> EngineReport | None:
        """Return the engine of that id."""
        return next((each for each in self.report.engines if each.id == id_), None)

    def change(self, id_: str, **fields: Any) -> None:
        """Change one engine, and send that, and what it changes for others."""
        before = self.report.engines
        engines = tuple(
            msgspec.structs.replace(each, **fields) if each.id == id_ else each
            for each in before
        )
        self.report = msgspec.structs.replace(self.report, engines=engines)
        if self.loads.room is not None:
            self.report = msgspec.structs.replace(
                self.report,
                engines=tuple(
                    msgspec.structs.replace(each, evicts=self.loads.evicts(each))
                    for each in engines
                ),
            )
        for old, new in zip(before, self.report.engines, strict=True):
            if new.id == id_ or new != old:
                self.send(write_event(encode(EngineChange(engine=new)), "engine"))

    def hush(self) -> None:
        """Break every event stream."""
        self.send(None)

    def send(self, frame: bytes | None) -> None:
        """Send any bytes to those who follow; None breaks off."""
        for follower in self._followers:
            follower.put_nowait(frame)

    def freeze(self) -> None:
        """Say nothing any longer, connections open: a machine that hangs."""
        self.frozen = True
        self.llama.freeze()

    async def _next(self, queue: asyncio.Queue[bytes | None]) -> bytes | None:
        while self.frozen:
            await asyncio.sleep(HEARTBEAT_SECONDS)
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                return await queue.get()
        except TimeoutError:
            return write_event(b"{}", "heartbeat")

    async def relay(self, request: Request, reply: Response) -> None:
        """Admit, ask the engine, pass its answer on."""
        self.told.append(request)
        if self.refuse:
            raise self.refuse
        if not ROUTES[request.path].slot:
            await self._passed(request, reply)
            return
        asked = self.find(request.headers.get(VARIANT_HEADER, "")) or self.engine
        if asked.state in {"absent", "loading", "leaving"}:
            raise FleetBusy(1, f"{asked.id} is {asked.state}")
        if self.admits and asked.busy >= asked.slots:
            raise FleetBusy(1)
        self._busier(asked.id, 1)
        notice = 0.0
        try:
            await self._passed(request, reply)
        except (asyncio.CancelledError, ConnectionError):
            notice = self.llama.behaviour.notice
            raise
        finally:
            asyncio.get_running_loop().call_later(notice, self._busier, asked.id, -1)

    def _busier(self, id_: str, by: int) -> None:
        engine = self.find(id_)
        if engine is not None:
            self.change(id_, busy=engine.busy + by)

    async def _played(self, reply: Response) -> None:
        stream, how = self.script.pop(0)
        await reply.start(200, {"content-type": "text/event-stream"})
        await reply.write(stream)
        if how == "broken":
            raise NodeLost("made to break off")
        await reply.finish()

    async def _passed(self, request: Request, reply: Response) -> None:
        if self.script:
            await self._played(reply)
            return
        engine = origin_of(self.llama.origin, 0)
        async with (
            http.upstream(connect_seconds=30) as upstream,
            upstream.ask(
                engine, request.method, request.target, request.headers, request.body
            ) as answer,
        ):
            if answer.status >= 400:
                await reply.send(answer.status, answer.headers, await answer.read())
                return
            await reply.start(answer.status, answer.headers)
            await answer.pump(reply, lambda _: None)
            await asyncio.sleep(self.lingers)
            await reply.finish()

    async def log(self, request: web.Request) -> web.Response:
        """Show its log, as real nodes do."""
        if self.kept is None:
            raise web.HTTPNotFound
        after, kept = request.query["after"], tuple(self.kept)
        return json_response(since(after, self.report.instance, kept, len(kept)))

    async def waiting(self, request: web.Request) -> web.Response:
        """Take in what waits, as real nodes do."""
        if self.waits is None:
            raise web.HTTPNotFound
        self.waits.append(decode(await request.read(), WaitingRequests))
        return web.Response(status=204)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Stream reports, changes, heartbeats."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        queue.put_nowait(write_event(encode(self.report), "report"))
        self._followers.add(queue)
        try:
            while frame := await self._next(queue):
                await response.write(frame)
        finally:
            self._followers.discard(queue)
        return response


@asynccontextmanager
async def fake_node(
    name: str = "pi",
    behaviour: Behaviour | None = None,
    *,
    engine: EngineReport | None = None,
    others: Sequence[EngineReport] = (),
    port: int = 0,
    tokens: FleetTokens | None = None,
    **report: Any,
) -> AsyncGenerator[FakeNode]:
    """Run a fake node with one fake llama-server, which answers for all its engines.

    With `tokens` it speaks TLS and proves itself, as a real one does.
    """
    behaviour = behaviour or Behaviour()
    served = engine or an_engine(slots=behaviour.slots)
    behaviour.model = served.variant
    async with fake_llama(behaviour) as llama:
        certificate = new_certificate(name) if tokens else None
        if certificate:
            report.setdefault("id", certificate.id)
        node = FakeNode(name, llama, a_report(served, *others, name=name, **report))
        sock = socket.create_server(("127.0.0.1", port))
        events = web.get("/edgeserve/v1/events", node.events)
        log = web.get(LOG, node.log)
        wait = web.post(WAITING, node.waiting)
        routes = [events, log, wait, *node.loads.routes(), *node.files.routes()]
        routes += node.groups.routes()
        async with (
            _proving(sock, node, routes, certificate, tokens)
            if tokens and certificate
            else aiohttp_relay.listen(
                sock, node.relay, ROUTES.__contains__, routes, body_limit=2**27
            )
        ) as bound:
            node.origin = Origin("127.0.0.1", bound, tls=bool(tokens))
            try:
                yield node
            finally:
                await node.loads.end()
                node.hush()


def _proving(
    sock: socket.socket,
    node: FakeNode,
    routes: list[web.RouteDef],
    certificate: Certificate,
    tokens: FleetTokens,
) -> AbstractAsyncContextManager[int]:
    sock.setblocking(False)
    context = server_context(certificate)
    return http.listen(
        sock,
        node.relay,
        ROUTES.__contains__,
        routes,
        body_limit=2**27,
        tls=lambda: context,
        greeting=Proving(tokens, lambda: certificate.fingerprint),
    )
