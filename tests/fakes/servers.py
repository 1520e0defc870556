"""Servers of other programs: what each kind answers, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from edgeserve import http

Json = dict[str, Any]
Fake = TypeVar("Fake", bound="FakeServer")


def listed(*ids: str, owner: str = "me", **more: Any) -> Json:
    """Build a list of models."""
    cards = [{"id": each, "object": "model", "owned_by": owner, **more} for each in ids]
    return {"object": "list", "data": cards}


VLLM: Json = {
    "/v1/models": listed("Qwen/Small", owner="vllm", max_model_len=2048),
    "/version": {"version": "0.32.0"},
    "/health": b"",
    "/metrics": b'# TYPE x gauge\nvllm:num_requests_running{engine="0"} 1.0\n'
    b'vllm:num_requests_running{engine="1"} 1.0\n'
    b'vllm:num_requests_waiting{engine="0"} 1.0\n',
}
LLAMA_SERVER: Json = {
    "/props": {
        "build_info": "b11434",
        "total_slots": 3,
        "default_generation_settings": {"n_ctx": 1024},
        "modalities": {"vision": True, "audio": False},
    },
    "/v1/models": listed("/models/Small-Q4_K_M.gguf", owner="llamacpp"),
    "/health": {"status": "ok"},
    "/slots": [{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}],
}
OLLAMA: Json = {
    "/": b"Ollama is running",
    "/api/version": {"version": "0.12"},
    "/api/tags": {"models": [{"name": "small:latest"}, {"name": "big:cloud",
                                                        "remote_host": "x"}]},
    "/api/ps": {"models": [{"name": "small:latest", "context_length": 8192}]},
    "/v1/models": listed("small:latest", "big:cloud", "nomic-embed-text:v1.5"),
}  # fmt: skip
SGLANG: Json = {
    "/v1/models": listed("org/small", owner="sglang", max_model_len=4096),
    "/v1/loads": {
        "loads": [
            {
                "num_running_reqs": 2,
                "num_waiting_reqs": 1,
                "max_running_requests": 20,
            }
        ]
    },
}
TGI: Json = {
    "/info": {
        "model_id": "org/small",
        "router": "text-generation-router",
        "max_concurrent_requests": 128,
        "max_total_tokens": 2048,
    },
    "/v1/models": listed("org/small", owner="org/small"),
    "/health": b"",
    "/metrics": b"tgi_batch_current_size 3\ntgi_queue_size 1\n",
}
OPENAI: Json = {"/v1/models": listed("small")}


def chunk(delta: Json, finish: str | None = None, **more: Any) -> bytes:
    """Build one event of a chat, as Python servers write it."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    event = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: %b\n\n" % json.dumps({**event, "choices": [choice], **more}).encode()


USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
USAGE_CHUNK = b'data: {"id":"c1","choices":[],"usage":%b}\n\n' % (
    json.dumps(USAGE).encode()
)
DONE = b"data: [DONE]\n\n"
ANSWER = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Hello"}),
    chunk({"content": " there"}, "stop"),
    USAGE_CHUNK,
    DONE,
]


@dataclass
class FakeServer:
    """A running fake. `answers` by path: JSON, bytes, or a status and one of them,
    perhaps with header fields.

    `script`: what the streams consist of, one list of pieces a request; None breaks the
    connection off. `posts`: answers by path to POST that are no streams. `key`: what it
    wants. `gate`: streams wait for it after their second piece. `left`: set when a
    client leaves during that. `quiet`: all that is asked waits for it. `tls`: it
    speaks TLS.
    """

    answers: Json
    script: list[list[bytes | None]] = field(default_factory=list[Any])
    posts: Json = field(default_factory=dict[str, Any])
    key: str = ""
    asked: list[tuple[str, Mapping[str, str], Json]] = field(
        default_factory=list[tuple[str, Mapping[str, str], Json]]
    )
    redirects: dict[str, str] = field(default_factory=dict[str, str])
    looked: list[str] = field(default_factory=list[str])
    gate: asyncio.Event | None = None
    left: asyncio.Event | None = None
    quiet: asyncio.Event | None = None
    tls: ssl.SSLContext | None = None
    port: int = 0
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, at the same port as before."""
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._handle)
        self._runner = web.AppRunner(
            app, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        sock = http.bind("127.0.0.1", self.port)
        self.port = sock.getsockname()[1]
        await web.SockSite(self._runner, sock, ssl_context=self.tls).start()

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            self.looked.append(request.path)
        if self.quiet is not None:
            await self.quiet.wait()
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        if request.method == "GET":
            if request.path in self.redirects:
                raise web.HTTPTemporaryRedirect(self.redirects[request.path])
            return response(self.answers.get(request.path, (404, b"Not Found")))
        body = json.loads(await request.read())
        self.asked.append((request.path, request.headers, body))
        if request.path in self.posts:
            return response(self.posts[request.path])
        if not body.get("stream"):
            return response(whole_answer())
        return await self._stream(request)

    async def _at_gate(self, gate: asyncio.Event) -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            if self.left is not None:
                self.left.set()
            raise

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        pieces = self.script.pop(0) if self.script else ANSWER
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        for number, piece in enumerate(pieces):
            if number == 2 and self.gate is not None:
                await self._at_gate(self.gate)
            if piece is None:
                assert request.transport is not None
                request.transport.abort()
                break
            await answer.write(piece)
        return answer


def whole_answer(content: str = "Hello there") -> Json:
    """Build a chat that is not streamed."""
    message = {"role": "assistant", "content": content, "reasoning": "hm"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c1", "model": "m", "choices": [choice], "usage": USAGE}


def response(answer: Any) -> web.Response:
    """Build an answer; see `FakeServer.answers`."""
    status, found, *more = answer if isinstance(answer, tuple) else (200, answer)
    made = (
        web.Response(status=status, body=found, content_type="text/plain")
        if isinstance(found, bytes)
        else web.json_response(found, status=status)
    )
    made.headers.update(*more)
    return made


@asynccontextmanager
async def serving(fake: Fake) -> AsyncGenerator[Fake]:
    """Have a fake serve until the block ends."""
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()


def fake_server(
    answers: Json, **fields: Any
) -> AbstractAsyncContextManager[FakeServer]:
    """Serve until the block ends."""
    return serving(FakeServer(dict(answers), **fields))
