"""Server client: every request that the balancer sends to a server that is no node.

A server gets its own key and none of the client's headers, and its errors come back in
our format, whatever theirs is.
"""

from __future__ import annotations

import re
import secrets
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec

from balancer.fleet.engines import EngineCandidate
from balancer.servers.server import Server, tls_sentence
from balancer.servers.stream import OURS, REASONING, as_stream
from edgeserve.errors import NodeLost, NotReached
from edgeserve.http.client.pool import Pool
from edgeserve.http.types import Answer, Origin, Request, Response, Upstream
from edgeserve.openai import ROUTES, fields
from edgeserve.served import Continued
from edgeserve.servers.asking import get, without_key
from edgeserve.servers.errors import error_of, no_answer
from edgeserve.servers.profiles.base import Reply
from edgeserve.servers.profiles.translation import Translation
from edgeserve.wire import BALANCER_HEADER

JSON = {"content-type": "application/json"}

STREAM = "text/event-stream"

LARGEST_ANSWER = 64 * 2**20
"""Bytes of an answer to a request; the embeddings of many texts take most."""

STREAMS = b'"stream":true'
"""In the body of a request for a stream, as `edited` writes it."""

KEPT = ("content-type", "retry-after")
"""Header fields of an answer that clients get."""

_TOO_LONG = re.compile(
    r"maximum context length|context (size|length|window)|max_new_tokens` must be"
    r"|longer than the (model's|maximum)|prompt is too long",
    re.IGNORECASE,
)

_CONTEXT = re.compile(
    r"context (?:length|size|window)(?: is| of(?: only)?)?:? ?\(?(\d{2,9})\b"
    r"|must be <= (\d{2,9})\b",
    re.IGNORECASE,
)

TOO_LONG = "exceed_context_size_error"
"""llama.cpp's type for a prompt that does not fit."""


class ServerClient:
    """Sends requests to servers; `servers` has those that are known, by id.

    `id` is this balancer's, for servers that are balancers.
    """

    def __init__(self, upstream: Pool) -> None:
        self.id = secrets.token_hex(8)
        self._upstream = upstream
        self.servers: dict[str, Server] = {}

    def trust(self, server: Server) -> None:
        """Verify a server by its certificates from now on. Raises SettingsError."""
        if server.upstream is None:
            self._upstream.trust(server.origin, server.trusting())

    def distrust(self, server: Server) -> None:
        """Verify what is where a server was as its neighbours there, or as usual."""
        self._upstream.trust(server.origin, None)
        for each in self.servers.values():
            if each.origin == server.origin:
                self.trust(each)

    def is_at(self, origin: Origin) -> bool:
        """Whether one of them is at an address."""
        return origin in self.named()

    def named(self) -> set[Origin]:
        """Return where those are that no node has adopted."""
        return {each.origin for each in self.servers.values() if not each.upstream}

    def way_to(self, server: Server) -> Upstream:
        """Return the connections to a server: its own, or those to its node."""
        return server.upstream or self._upstream

    async def get(self, server: Server, path: str) -> Reply:
        """Ask for a path. Raises NodeLost."""
        url, way = server.setting.url, self.way_to(server)
        balances = server.found is not None and server.found.balances
        extra = {BALANCER_HEADER: self.id} if balances else None
        try:
            return await get(way, server.origin, path, server.key, url, extra)
        except NotReached as error:
            if isinstance(error.__cause__, ssl.SSLError):
                why = tls_sentence(url, error.__cause__)
                raise NotReached(why) from error.__cause__
            raise

    def shown(self, to: EngineCandidate, way: Continued, *, goes_on: bool) -> None:
        """See `NodeClient.shown`."""
        server = self.servers.get(to.node_id)
        if server is not None and server.epoch == to.engine.epoch:
            server.shown[to.engine.id, way] = goes_on

    def forward(
        self,
        to: EngineCandidate,
        request: Request,
        request_id: str,
        body: bytes,
        passed: str,
    ) -> AbstractAsyncContextManager[Answer]:
        """See `ServerRequests.forward`."""
        headers, server = {"x-request-id": request_id}, self.servers.get(to.node_id)
        if server is not None and server.found is not None and server.found.balances:
            headers[BALANCER_HEADER] = passed
        if request.method == "GET":
            return self._ask(to, request.path, b"", headers, request.target)
        return self._ask(to, request.path, body, headers)

    def probe(
        self, to: EngineCandidate, path: str, body: bytes
    ) -> AbstractAsyncContextManager[Answer]:
        """See `NodeClient.probe`."""
        return self._ask(to, path, body, {})

    @asynccontextmanager
    async def _ask(
        self,
        to: EngineCandidate,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        got: str = "",
    ) -> AsyncGenerator[Answer]:
        """Ask; `got`: the target of a GET."""
        server = self.servers.get(to.node_id)
        if server is None or server.found is None:
            raise NodeLost(f"{to.node} is not known any more")
        profile, route = server.found.profile, ROUTES[path].path
        translation = profile.translates.get(route)
        if translation is not None:
            body = msgspec.json.encode(translation.asked(fields(body)))
            route = translation.path
        here = server.found.api if route.startswith("/v1/") else server.base
        target = here + (got or route.removeprefix("/v1"))
        asked = self.way_to(server).ask(
            to.origin,
            "GET" if got else "POST",
            target,
            {**JSON, **headers, **server.headers},
            body,
        )
        asks = f"{'GET' if got else 'POST'} {target} of {server.setting.url}"
        server.open.add(asked)
        try:
            async with asked as answer:
                server.answered += 1
                server.begun.add(asked)
                found = await _understood(server, asks, answer, translation)
                streams = STREAMS in body and found.is_whole
                yield found.streamed() if streams else found
        finally:
            server.open.discard(asked)
            server.begun.discard(asked)


async def _understood(
    server: Server, asks: str, answer: Answer, translation: Translation | None
) -> ServerAnswer:
    """Read an answer that is no stream, and put it into our format.

    `asks` says what was asked.
    """
    headers = {key: answer.headers[key] for key in KEPT if key in answer.headers}
    kind = headers.get("content-type", "")
    if answer.status == 200 and kind.startswith(STREAM):
        return ServerAnswer(200, headers, answer)
    came = await _whole(asks, answer)
    if 300 <= answer.status < 400:
        there = answer.headers.get("location", "elsewhere")
        raise NodeLost(
            f"{asks} was answered {answer.status}: it points to {there}; name that URL"
        )
    if answer.status >= 400:
        came = without_key(came, server.key)
        status, came = as_ours(server, answer.status, came)
        return ServerAnswer(status, {**headers, **JSON}, answer, came)
    if translation is not None:
        return ServerAnswer(200, headers, answer, _translated(asks, translation, came))
    if server.found is not None and server.found.profile.llama_cpp and came.strip():
        return ServerAnswer(200, headers, answer, came)
    shown = without_key(came, server.key)
    if wrong := no_answer(shown, kind, embeds="/embeddings" in asks):
        raise NodeLost(f"{asks} was answered {answer.status} {wrong}")
    return ServerAnswer(200, headers, answer, came.replace(REASONING, OURS))


async def _whole(asks: str, answer: Answer) -> bytes:
    """Read a body, but not for ever. Raises NodeLost."""
    pieces, size = list[bytes](), 0
    while piece := await answer.chunk():
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST_ANSWER:
            raise NodeLost(
                f"{asks} was answered with over {LARGEST_ANSWER} bytes: see its log"
            )
    return b"".join(pieces)


def _translated(asks: str, translation: Translation, body: bytes) -> bytes:
    """Return the answer to a translated request, as llama.cpp would give it. Pure."""
    try:
        return msgspec.json.encode(translation.answered(msgspec.json.decode(body)))
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise NodeLost(f"{asks} was answered with no such thing: {error!r}") from error


def as_ours(server: Server, status: int, body: bytes) -> tuple[int, bytes]:
    """Return status and body of an error as a node would give them. Pure."""
    error = error_of(body, status)
    match status:
        case 401 | 403:
            error["message"] = (
                f"{server.name} refuses the key that it gets: {error['message']}"
            )
        case 404:  # model and path are ours: the client did nothing
            error["code"] = "model_not_found"
            error["message"] = (
                f"{server.name} has no such model or path any more: {error['message']}"
            )
        case 400 | 413 | 422 if _TOO_LONG.search(error["message"]):
            status, error["type"], error["code"] = 400, TOO_LONG, 400
            if context := context_in(error["message"]):
                error["n_ctx"] = context
        case 424:  # TGI: the generation failed
            status, error["code"] = 500, 500
        case _:
            pass
    return status, msgspec.json.encode({"error": error})


def context_in(message: str) -> int:
    """Return the context that an error names, 0 where it names none. Pure."""
    found = _CONTEXT.search(message)
    return int(found[1] or found[2]) if found else 0


class ServerAnswer:
    """See `Answer`: a stream that is still to come, or a whole body in our format."""

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        answer: Answer,
        body: bytes | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self._answer = answer
        self._body = body

    @property
    def is_whole(self) -> bool:
        """Whether it is an answer that does not stream."""
        return self._body is not None and self.status < 400

    def streamed(self) -> ServerAnswer:
        """Return a whole answer as a stream."""
        headers = {**self.headers, "content-type": STREAM}
        return ServerAnswer(200, headers, self._answer, as_stream(self._body or b""))

    @property
    def id(self) -> str:
        """No certificate of ours."""
        return ""

    async def read(self) -> bytes:
        """See `Answer.read`."""
        return await self._answer.read() if self._body is None else self._body

    async def chunk(self) -> bytes:
        """See `Answer.chunk`."""
        if self._body is None:
            return await self._answer.chunk()
        body, self._body = self._body, b""
        return body

    async def pump(self, reply: Response, observe: Callable[[bytes], None]) -> None:
        """See `Answer.pump`."""
        await self._answer.pump(reply, observe)

    async def pump_filtered(
        self, reply: Response, filter_: Callable[[bytes], bytes]
    ) -> None:
        """See `Answer.pump_filtered`."""
        await self._answer.pump_filtered(reply, filter_)
