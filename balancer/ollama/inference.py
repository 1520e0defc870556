"""Ollama's inference routes: translate, and let the usual handler answer."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import msgspec

from balancer.api.models.bodies import UnloadOrder
from balancer.api.models.orders import OrderRoutes
from balancer.clients.admission import Admission
from balancer.clients.keys import AdminOnly
from balancer.ollama.answers import answer_to
from balancer.ollama.names import resolved
from balancer.ollama.requests import SHAPES, EngineRequest, engine_request
from balancer.ollama.response import OllamaResponse, nothing
from edgeserve.errors import EdgeserveError, WrongMethod
from edgeserve.http.types import Handler, Request, Response
from edgeserve.openai import ROUTES

HANDLED = frozenset((*ROUTES, *SHAPES))
"""Every path that the relay answers."""

JSON = {"content-type": "application/json"}


@dataclass(frozen=True, kw_only=True)
class OllamaInference:
    """Answers Ollama's routes through `inner`, and leaves it all others.

    Whether the client may have a model unloaded is asked as for any order of an admin.
    """

    inner: Handler
    clients: Admission
    orders: OrderRoutes

    def __call__(self, request: Request, reply: Response) -> Awaitable[None]:
        """Answer one request."""
        if request.path not in SHAPES:
            return self.inner(request, reply)
        return self._answer(request, reply)

    async def _answer(self, request: Request, reply: Response) -> None:
        if request.method != "POST":
            raise WrongMethod(request.method, request.path, ["POST"])
        self.clients.check(request.headers)
        asked = engine_request(request.path, request.body)
        state = self.orders.state
        model = resolved(asked.model, state.current.candidates, state.routes.by_name)
        if not asked.path:
            self.clients.manager(request.headers)
            await self.orders.unload_model(model, UnloadOrder())
            await OllamaResponse(reply, answer_to(asked)).send(200, JSON, b"")
            return
        ignored, before_end = asked.ignored, nothing
        if asked.keep_alive is not None and self._manages(request):
            before_end = partial(self._keep, model, asked.keep_alive)
        elif asked.keep_alive is not None:
            ignored = (*ignored, "keep_alive")
        response = OllamaResponse(reply, answer_to(asked), ignored, before_end)
        await self.inner(_translated(request, asked, model), response)

    def _manages(self, request: Request) -> bool:
        try:
            self.clients.manager(request.headers)
        except AdminOnly:
            return False
        return True

    async def _keep(self, model: str, seconds: float) -> None:
        """Have the model leave once it is idle for so long; a refusal has no effect."""
        with suppress(EdgeserveError):
            if seconds:
                await self.orders.keep_model(model, seconds)
            else:
                await self.orders.unload_model(model, UnloadOrder())


def _translated(request: Request, asked: EngineRequest, model: str) -> Request:
    return msgspec.structs.replace(
        request,
        path=asked.path,
        asked=request.path,
        query="",
        headers={**request.headers, **JSON},
        body=msgspec.json.encode({**asked.body, "model": model}),
    )
