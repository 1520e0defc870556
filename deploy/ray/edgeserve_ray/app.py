"""Applications for `serve run edgeserve_ray.app:llama_cpp` and `…:vllm`.

Each has two deployments. `EngineReplica` runs one engine and takes as many requests as
that has slots; Ray Serve starts and stops replicas by load. `Ingress` speaks OpenAI's
API; it answers the list of models at once even while all replicas are busy, and hides
the end of a replica where nothing has been sent of an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import aiohttp
from ray import serve
from ray.exceptions import RayError, TaskCancelledError
from ray.serve import Application
from ray.serve.config import AutoscalingConfig
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from edgeserve_ray.answers import (
    BROKEN_OFF,
    EVENTS,
    NO_REPLICA,
    RELAYED,
    STARTING,
    error,
    error_event,
    model_list,
)
from edgeserve_ray.engine import RunningEngine
from edgeserve_ray.settings import (
    EngineSettings,
    LlamaCppSettings,
    VllmSettings,
    settings_of,
)

Head = tuple[int, str]
"""Status and content type of an answer."""

MOST_DEATHS = 3
"""Replicas that end with a request before it is given up: it may be the reason."""

MOST_REFUSALS = 40
PAUSE_SECONDS = 0.25
"""After a replica whose engine has just ended: it ends itself in a moment."""

UNLIMITED = aiohttp.ClientTimeout(total=None)
"""Slow is not dead: a replica's end closes its connections."""

MOST_REQUESTS = 100_000
"""At once, in the ingress: they wait there for a replica."""

HEALTH_SECONDS = 5.0


class NotReached(Exception):
    """An engine has ended before it got a request."""


class EngineReplica:
    """One engine; its requests come from the ingress."""

    def __init__(self, settings: EngineSettings) -> None:
        """Start the engine. Runs in the event loop's thread, which the engine needs."""
        self._engine = RunningEngine(settings)
        self._session: aiohttp.ClientSession | None = None

    async def ready(self) -> bool:
        """Answer, once the engine has loaded."""
        return True

    async def check_health(self) -> None:
        """Raise unless the engine answers; Ray Serve then replaces the replica."""
        url = f"{self._engine.url}/health"
        async with self._client().get(url) as answer:
            answer.raise_for_status()

    async def answer(self, path: str, body: bytes) -> AsyncGenerator[Head | bytes]:
        """Yield the engine's answer: its head, then its body; streams as they come.

        Cancelled or closed, it closes the connection, and the engine stops computing.
        """
        headers = {"content-type": "application/json"}
        url = f"{self._engine.url}{path}"
        try:
            answer = await self._client().post(url, data=body, headers=headers)
        except aiohttp.ClientConnectorError as error:
            raise NotReached(str(error)) from error
        async with answer:
            kind = answer.headers.get("content-type", "application/json")
            if not kind.startswith(EVENTS):
                whole = await answer.read()
                yield answer.status, kind
                yield whole
                return
            yield answer.status, kind
            async for piece in answer.content.iter_any():
                yield piece

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._engine.headers,
                timeout=UNLIMITED,
                connector=aiohttp.TCPConnector(limit=0),
            )
        return self._session

    def __del__(self) -> None:
        """End the engine; Ray Serve calls it once no request runs any more."""
        if engine := getattr(self, "_engine", None):
            engine.stop()


class Ingress:
    """OpenAI's API in front of the replicas."""

    def __init__(self, engines: DeploymentHandle, settings: EngineSettings) -> None:
        """Begin to wait for the first replica."""
        self._engines = engines.options(stream=True)
        self._settings = settings
        self._first = asyncio.create_task(self._until_ready(engines))

    async def _until_ready(self, engines: DeploymentHandle) -> None:
        while True:
            try:
                await engines.ready.remote()
            except RayError:
                await asyncio.sleep(1)
            else:
                return

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        path = request.url.path
        if request.method == "GET" and path in {"/v1/models", "/health"}:
            return self._models()
        if request.method == "POST" and path in RELAYED:
            return await self._relayed(path, await request.body())
        return _refused(f"there is no {request.method} {path} here", 404)

    def _models(self) -> Response:
        if not self._first.done():
            return _refused(STARTING, 503)
        return JSONResponse(model_list(self._settings))

    async def _relayed(self, path: str, body: bytes) -> Response:
        """Give the request to replicas until one has begun to answer."""
        deaths = refusals = 0
        while deaths < MOST_DEATHS and refusals < MOST_REFUSALS:
            pieces = self._engines.answer.remote(path, body)
            try:
                return await _begun(pieces)
            except TaskCancelledError:
                raise
            except NotReached:
                refusals += 1
                await asyncio.sleep(PAUSE_SECONDS)
            except RayError:  # the replica, or its engine, has ended with it
                deaths += 1
        return _refused(NO_REPLICA, 503)


async def _begun(pieces: Any) -> Response:
    """Return an answer that has begun; a replica that has not stops computing."""
    try:
        status, kind = cast("Head", await anext(pieces))
        if not kind.startswith(EVENTS):
            return Response(await anext(pieces), status, media_type=kind)
    except BaseException:
        pieces.cancel()
        raise
    return StreamingResponse(_stream(pieces), status, media_type=kind)


async def _stream(pieces: Any) -> AsyncGenerator[bytes]:
    """Pass a stream on; however that ends, the replica stops computing."""
    try:
        async for piece in pieces:
            yield piece
    except RayError:
        yield error_event(BROKEN_OFF)
    finally:
        pieces.cancel()


def _refused(sentence: str, status: int) -> Response:
    return JSONResponse(error(sentence, status), status)


def llama_cpp(args: dict[str, Any]) -> Application:
    """Build the application that serves a GGUF file by llama.cpp."""
    return _application(settings_of(LlamaCppSettings, args))


def vllm(args: dict[str, Any]) -> Application:
    """Build the application that serves a model by vLLM."""
    return _application(settings_of(VllmSettings, args))


def _application(settings: EngineSettings) -> Application:
    engines = serve.deployment(
        EngineReplica,
        max_ongoing_requests=settings.slots,
        autoscaling_config=AutoscalingConfig(
            min_replicas=settings.min_replicas,
            max_replicas=settings.max_replicas,
            target_ongoing_requests=settings.slots,
            upscale_delay_s=settings.upscale_seconds,
            downscale_delay_s=settings.downscale_seconds,
        ),
        health_check_period_s=HEALTH_SECONDS,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
    )
    ingress = serve.deployment(
        Ingress,
        max_ongoing_requests=MOST_REQUESTS,
        ray_actor_options={"num_cpus": 0},
    )
    return ingress.bind(engines.bind(settings), settings)
