"""Server client: every request that the balancer sends to a server that is no node.

A server gets its own key and none of the client's headers, and its errors come back in
our format, whatever theirs is.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

from balancer.fleet.engines import EngineCandidate
from balancer.servers.report import id_of, name_of
from balancer.servers.stream import OURS, REASONING, as_stream
from edgeserve.config.servers import ServerSetting, key_of
from edgeserve.errors import NodeLost, SettingsError, in_words
from edgeserve.http.types import Answer, Origin, Request, Response, Upstream, origin_of
from edgeserve.json_edit import edited, raw_fields
from edgeserve.openai import ROUTES
from edgeserve.runtime.files import read_text
from edgeserve.servers.errors import error_of, no_answer
from edgeserve.servers.profiles.base import Profile, Reply
from edgeserve.servers.recognition import Recognised

JSON = {"content-type": "application/json"}

STREAM = "text/event-stream"

LARGEST = 8 * 2**20
"""Bytes of an answer to a GET; a larger one is no list and no metrics."""

LARGEST_ANSWER = 64 * 2**20
"""Bytes of an answer to a request; the embeddings of many texts take most."""

STREAMS = b'"stream":true'
"""In the body of a request for a stream, as `edited` writes it."""

LONGEST_KEY = 16384

KEPT = ("content-type", "retry-after")
"""Header fields of an answer that clients get."""

_TOO_LONG = re.compile(
    r"maximum context length|context (size|length|window)|max_new_tokens` must be"
    r"|longer than the (model's|maximum)|prompt is too long",
    re.IGNORECASE,
)

TOO_LONG = "exceed_context_size_error"
"""llama.cpp's type for a prompt that does not fit."""


@dataclass
class Server:
    """One server: where it is, and what was found out about it.

    `base` is the path of its URL, without `/v1`. `epoch` counts how often it came back.
    """

    setting: ServerSetting
    origin: Origin
    base: str
    found: Recognised | None = None
    key: str = ""
    epoch: int = 0
    id: str = field(init=False)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.id, self.name = id_of(self.setting), name_of(self.setting)

    def read_key(self) -> None:
        """Read its key, which may have changed. Raises SettingsError."""
        file = key_of(self.setting)
        if file is None:
            return
        try:
            self.key = read_text(file, LONGEST_KEY).strip()
        except OSError as error:
            raise SettingsError(
                f"the key of {self.setting.url} cannot be read: {in_words(error)}"
            ) from error
        if not self.key.isprintable() or not self.key.isascii():
            raise SettingsError(f"{file} has no key on one line for {self.setting.url}")

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that show it its key."""
        return {"authorization": f"Bearer {self.key}"} if self.key else {}


def server_of(setting: ServerSetting) -> Server:
    """Return a server that nothing is known of yet. Raises SettingsError."""
    parts = urlsplit(setting.url)
    origin = origin_of(setting.url, 443 if parts.scheme == "https" else 80)
    base = parts.path.rstrip("/").removesuffix("/v1")
    server = Server(setting, origin, base)
    server.read_key()
    return server


class ServerClient:
    """Sends requests to servers; `servers` has those that are known, by id."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.servers: dict[str, Server] = {}

    def is_at(self, origin: Origin) -> bool:
        """Whether one of them is at an address."""
        return any(each.origin == origin for each in self.servers.values())

    async def get(self, server: Server, path: str) -> Reply:
        """Ask for a path. Raises NodeLost."""
        asking = self._upstream.ask(server.origin, "GET", path, server.headers)
        async with asking as answer:
            pieces, size = list[bytes](), 0
            while piece := await answer.chunk():
                pieces.append(piece)
                size += len(piece)
                if size > LARGEST:
                    raise NodeLost(
                        f"GET {path} of {server.setting.url} was answered with more"
                        f" than {LARGEST} bytes, perhaps without end: is its URL right?"
                    )
            return Reply(answer.status, answer.headers, b"".join(pieces))

    def forward(
        self, to: EngineCandidate, request: Request, request_id: str, body: bytes
    ) -> AbstractAsyncContextManager[Answer]:
        """See `NodeClient.forward`."""
        return self._ask(to, request.path, body, {"x-request-id": request_id})

    def probe(
        self, to: EngineCandidate, path: str, body: bytes
    ) -> AbstractAsyncContextManager[Answer]:
        """See `NodeClient.probe`."""
        return self._ask(to, path, body, {})

    @asynccontextmanager
    async def _ask(
        self, to: EngineCandidate, path: str, body: bytes, headers: Mapping[str, str]
    ) -> AsyncGenerator[Answer]:
        server = self.servers.get(to.node_id)
        if server is None or server.found is None:
            raise NodeLost(f"{to.node} is not known any more")
        target = server.found.api + ROUTES[path].path.removeprefix("/v1")
        asked = self._upstream.ask(
            to.origin,
            "POST",
            target,
            {**JSON, **headers, **server.headers},
            fitting(server.found.profile, body),
        )
        async with asked as answer:
            asks = f"POST {target} of {server.setting.url}"
            found = await _understood(server, asks, answer)
            if STREAMS in body and found.is_whole:
                yield found.streamed()
            else:
                yield found


def fitting(profile: Profile, body: bytes) -> bytes:
    """Return a body without what this kind of server refuses. Pure."""
    if not profile.drops and not profile.renames:
        return body
    given = raw_fields(body)
    put: dict[str, object] = {
        new: given[old] for old, new in profile.renames.items() if old in given
    }
    return edited(body, put=put, drop=(*profile.drops, *profile.renames))


async def _understood(server: Server, asks: str, answer: Answer) -> ServerAnswer:
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
        status, came = as_ours(server, answer.status, came)
        return ServerAnswer(status, {**headers, **JSON}, answer, came)
    if wrong := no_answer(came, kind, embeds="/embeddings" in asks):
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
        case 424:  # TGI: the generation failed
            status, error["code"] = 500, 500
        case _:
            pass
    return status, msgspec.json.encode({"error": error})


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
