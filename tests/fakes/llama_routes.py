"""The fake's routes that generate nothing."""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from tests.fakes import llama_answers as answers
from tests.fakes.llama_state import State

PUBLIC = {"/health", "/v1/health"}


def refuse(status: int, message: str, kind: str) -> web.Response:
    """Answer with llama.cpp's error shape."""
    return web.json_response(answers.error(status, message, kind), status=status)


def gate(state: State) -> Middleware:
    """What happens before any route: frozen, loading, wrong key, bad input."""

    @web.middleware
    async def pass_(
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        await state.thawed.wait()
        if state.loading:
            return refuse(503, "Loading model", "unavailable_error")
        if request.path not in PUBLIC and not allowed(state, request):
            return refuse(401, "Invalid API Key", "authentication_error")
        try:
            return await handler(request)
        except web.HTTPException:
            return refuse(404, "File Not Found", "not_found_error")
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError) as error:
            return refuse(400, str(error), "invalid_request_error")

    return pass_


def allowed(state: State, request: web.Request) -> bool:
    """Whether the request shows the API key, if one is asked for."""
    key = state.behaviour.api_key
    if key is None:
        return True
    _, _, shown = request.headers.get("Authorization", "").partition(" ")
    shown = shown or request.headers.get("X-Api-Key", "")
    return hmac.compare_digest(shown.encode(), key.encode())


def routes(state: State) -> list[web.RouteDef]:
    """Every route that is not a generation."""
    known = Plain(state)
    return [
        web.get("/health", known.health),
        web.get("/v1/health", known.health),
        web.get("/v1/models", known.models),
        web.get("/models", known.models),
        web.get("/props", known.props),
        web.get("/slots", known.slots),
        web.get("/metrics", known.metrics),
        web.post("/v1/embeddings", known.embeddings),
        web.post("/v1/rerank", known.rerank),
        web.post("/tokenize", known.tokenize),
        web.post("/detokenize", known.detokenize),
        web.post("/apply-template", known.apply_template),
    ]


class Plain:
    """Handlers over one fake's state."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def models(self, _: web.Request) -> web.Response:
        behaviour = self._state.behaviour
        meta = {"n_ctx": behaviour.context, "n_ctx_train": behaviour.context}
        entry = {"id": behaviour.model, "object": "model", "owned_by": "llamacpp"}
        data = [{**entry, "created": answers.CREATED, "meta": meta}]
        return web.json_response({"object": "list", "data": data})

    async def props(self, _: web.Request) -> web.Response:
        behaviour = self._state.behaviour
        return web.json_response(
            {
                "default_generation_settings": {"n_ctx": behaviour.context},
                "total_slots": behaviour.slots,
                "model_alias": behaviour.model,
                "model_path": "fake.gguf",
                "modalities": {"vision": False, "video": False, "audio": False},
                "chat_template_caps": {"supports_tool_calls": behaviour.tools},
                "build_info": "b0-fake",
                "is_sleeping": False,
            }
        )

    async def slots(self, _: web.Request) -> web.Response:
        context = self._state.behaviour.context
        return web.json_response(
            [
                {"id": slot.id, "n_ctx": context, "is_processing": slot.busy}
                for slot in self._state.slots.all
            ]
        )

    async def metrics(self, _: web.Request) -> web.Response:
        done = self._state.counters
        values = {
            "prompt_tokens_total": done.prompt_tokens,
            "prompt_tokens_cached_total": done.cached_tokens,
            "tokens_predicted_total": done.predicted_tokens,
            "n_decode_total": done.decodes,
            "requests_processing": self._state.slots.busy,
            "requests_deferred": len(self._state.slots.queue),
        }
        lines = [
            f"# TYPE llamacpp:{name} counter\nllamacpp:{name} {value}\n"
            for name, value in values.items()
        ]
        return web.Response(text="".join(lines))

    async def embeddings(self, request: web.Request) -> web.Response:
        body = await self._state.read(request)
        if not self._state.behaviour.embeddings:
            return unsupported("embeddings", "--embeddings")
        asked = body["input"]
        texts: list[Any] = asked if isinstance(asked, list) else [asked]
        data = [
            {"index": n, "object": "embedding", "embedding": direction(str(text))}
            for n, text in enumerate(texts)
        ]
        tokens = sum(len(str(text).split()) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        head = {"model": self._state.behaviour.model, "object": "list"}
        return web.json_response({**head, "usage": usage, "data": data})

    async def rerank(self, request: web.Request) -> web.Response:
        body = await self._state.read(request)
        if not self._state.behaviour.rerank:
            return unsupported("reranking", "--reranking")
        results = [
            {"index": n, "relevance_score": 1.0 / (1 + n)}
            for n in range(len(body["documents"]))
        ]
        model = self._state.behaviour.model
        return web.json_response({"model": model, "object": "list", "results": results})

    async def tokenize(self, request: web.Request) -> web.Response:
        words = str((await self._state.read(request)).get("content", "")).split()
        return web.json_response({"tokens": list(range(len(words)))})

    async def detokenize(self, request: web.Request) -> web.Response:
        tokens = (await self._state.read(request))["tokens"]
        return web.json_response({"content": " ".join(f"w{n}" for n in tokens)})

    async def apply_template(self, request: web.Request) -> web.Response:
        messages = (await self._state.read(request))["messages"]
        tokens = answers.templated(messages)
        if self._state.behaviour.template == "mangled":
            tokens = [*tokens, "</>"]
        return web.json_response({"prompt": " ".join(tokens)})


def unsupported(what: str, flag: str) -> web.Response:
    """Answer 501 as llama.cpp does for a role it was not started in."""
    said = f"This server does not support {what}. Start it with `{flag}`"
    return refuse(501, said, "not_supported_error")


def direction(text: str) -> list[float]:
    """Make a unit vector of eight numbers out of a text; equal texts, equal vectors."""
    raw = [1.0 + sum(text.encode()[n::8]) for n in range(8)]
    length = math.hypot(*raw)
    return [value / length for value in raw]
