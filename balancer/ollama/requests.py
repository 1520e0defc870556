"""Ollama requests: what a client asks, as a request for an engine. Pure."""

from __future__ import annotations

import math
import re
from typing import Any, Literal, TypeVar

import msgspec

from balancer.ollama.messages import OllamaMessage, openai_messages, user_content
from edgeserve.errors import BadRequest
from edgeserve.wire import MALFORMED

Json = dict[str, Any]
T = TypeVar("T", bound=msgspec.Struct)

Shape = Literal["chat", "generate", "embed", "embeddings"]
"""The form of the answer."""

SHAPES: dict[str, Shape] = {
    "/api/chat": "chat",
    "/api/generate": "generate",
    "/api/embed": "embed",
    "/api/embeddings": "embeddings",
}
"""The routes that reach an engine, with the form of their answers."""

CHAT = "/v1/chat/completions"
LOAD = "/tokenize"
"""Takes no slot and no tokens, but has the model loaded."""

SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "stop"),
    *("repeat_penalty", "repeat_last_n", "presence_penalty", "frequency_penalty"),
    *("mirostat", "mirostat_tau", "mirostat_eta"),
)
"""Options that llama.cpp has by the same name."""

LEVELS = ("low", "medium", "high", "max")

_UNITS = {
    "": 1.0,
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
"""Seconds of each unit that Go writes times with; without one, seconds are meant."""

_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h|)")
_TIME = re.compile(rf"[+-]?(?:{_PART.pattern})+")


class _Common(msgspec.Struct, kw_only=True):
    model: str = ""
    stream: bool | None = None
    options: dict[str, Any] | None = None
    keep_alive: str | int | float | None = None


class _Writing(_Common, kw_only=True):
    format: Any = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class _Chat(_Writing, kw_only=True):
    messages: list[OllamaMessage] | None = None
    tools: list[Any] | None = None


class _Generate(_Writing, kw_only=True):
    prompt: str | None = None
    suffix: str | None = None
    images: list[str] | None = None
    system: str | None = None
    template: str | None = None
    context: list[Any] | None = None
    raw: bool | None = None


class _Embed(_Common, kw_only=True):
    input: str | list[str] | None = None
    prompt: str | None = None
    dimensions: int | None = None


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask of an engine, and what its answer becomes.

    `model` is as the client names it. `path` is empty where the model is only to be
    unloaded. `loads`: only the load is wanted. `keep_alive`: after how many idle
    seconds the model is to leave. `ignored` are fields that have no effect here.
    """

    shape: Shape
    model: str
    path: str = ""
    body: Json = {}
    stream: bool = False
    loads: bool = False
    keep_alive: float | None = None
    dimensions: int | None = None
    ignored: tuple[str, ...] = ()


def engine_request(path: str, body: bytes) -> EngineRequest:
    """Translate a request to one of `SHAPES`. Raises BadRequest."""
    match SHAPES[path]:
        case "chat":
            return _chat(_read(body, _Chat))
        case "generate":
            return _generate(_read(body, _Generate))
        case shape:
            return _embed(_read(body, _Embed), shape)


def _read(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except MALFORMED as error:
        raise BadRequest(f"the request body is not valid: {error}") from error


def named(model: str) -> str:
    """Return the model's name. Raises BadRequest where there is none."""
    if not model.strip():
        raise BadRequest("`model` is missing; /api/tags lists the models")
    return model


def _chat(asked: _Chat) -> EngineRequest:
    if not asked.messages:
        return _idle(asked, "chat")
    body = _fields(asked) | {"messages": openai_messages(asked.messages)}
    if asked.tools:
        body["tools"] = asked.tools
    return _written(asked, "chat", CHAT, body)


def _generate(asked: _Generate) -> EngineRequest:
    _check(asked)
    if not asked.prompt:
        return _idle(asked, "generate")
    body = _fields(asked)
    if asked.suffix:
        body |= {"input_prefix": asked.prompt, "input_suffix": asked.suffix}
        if (most := body.pop("max_tokens", None)) is not None:
            body["n_predict"] = most
        return _written(asked, "generate", "/infill", body)
    if asked.raw:
        body["prompt"] = asked.prompt
        return _written(asked, "generate", "/v1/completions", body)
    system = [{"role": "system", "content": asked.system}] if asked.system else []
    content = user_content(asked.prompt, asked.images)
    body["messages"] = [*system, {"role": "user", "content": content}]
    return _written(asked, "generate", CHAT, body)


def _check(asked: _Generate) -> None:
    """Refuse what would silently be lost."""
    if asked.template:
        raise BadRequest(
            "`template` is not supported here: the model's own is used; send the whole"
            " prompt with `raw`"
        )
    if asked.context:
        raise BadRequest(
            "`context` is not supported here; send the conversation to /api/chat"
        )
    if (asked.raw or asked.suffix) and (asked.system or asked.images):
        raise BadRequest(
            "`raw` and `suffix` go without `system` and `images`: no template is used"
        )
    if asked.suffix and asked.format:
        raise BadRequest("`suffix` goes without `format`")


def _embed(asked: _Embed, shape: Shape) -> EngineRequest:
    given: str | list[str] | None = asked.input if shape == "embed" else asked.prompt
    if not given:
        return _idle(asked, shape)
    if asked.dimensions is not None and asked.dimensions < 1:
        raise BadRequest("`dimensions` must be at least 1")
    return EngineRequest(
        shape=shape,
        model=named(asked.model),
        path="/v1/embeddings",
        body={"model": asked.model, "input": given},
        keep_alive=idle_seconds(asked.keep_alive),
        dimensions=asked.dimensions,
    )


def _idle(asked: _Common, shape: Shape) -> EngineRequest:
    """Load a model, or unload it: there is nothing to answer."""
    model, kept = named(asked.model), idle_seconds(asked.keep_alive)
    if kept == 0:
        return EngineRequest(shape=shape, model=model, keep_alive=kept)
    body: Json = {"model": model, "content": "Hi"}
    return EngineRequest(
        shape=shape, model=model, path=LOAD, body=body, loads=True, keep_alive=kept
    )


def _written(asked: _Writing, shape: Shape, path: str, body: Json) -> EngineRequest:
    stream = asked.stream is not False
    if stream:
        body["stream"] = True
        if path != "/infill":
            body["stream_options"] = {"include_usage": True}
    ignored = ("options.num_ctx",) if "num_ctx" in (asked.options or {}) else ()
    return EngineRequest(
        shape=shape,
        model=asked.model,
        path=path,
        body=body,
        stream=stream,
        keep_alive=idle_seconds(asked.keep_alive),
        ignored=ignored,
    )


def idle_seconds(keep_alive: str | float | None) -> float | None:
    """Return after how many idle seconds a model is to leave, infinity for never.

    None where that is not said. Raises BadRequest where it is no time.
    """
    if keep_alive is None or keep_alive == "":
        return None
    if isinstance(keep_alive, str):
        text = keep_alive.strip()
        if not _TIME.fullmatch(text):
            raise BadRequest('`keep_alive` must be seconds or a time such as "5m"')
        parts = _PART.findall(text)
        keep_alive = sum(float(number) * _UNITS[unit] for number, unit in parts)
        keep_alive *= -1 if text.startswith("-") else 1
    return math.inf if keep_alive < 0 else keep_alive


def _fields(asked: _Writing) -> Json:
    """Return the fields that all writing has, but for the prompt."""
    options = asked.options or {}
    body: Json = {"model": named(asked.model)}
    for name in SAMPLING:
        if options.get(name) is not None:
            body[name] = options[name]
    most = options.get("num_predict")
    endless = isinstance(most, int | float) and most <= 0
    if most is not None and not endless:
        body["max_tokens"] = most
    if asked.logprobs:
        body["logprobs"] = True
        if asked.top_logprobs:
            body["top_logprobs"] = asked.top_logprobs
    return body | _format(asked.format) | _think(asked.think)


def _format(wanted: Any) -> Json:
    match wanted:
        case None | "":
            return {}
        case "json":
            return {"response_format": {"type": "json_object"}}
        case dict():
            schema = {"name": "format", "schema": wanted}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case _:
            raise BadRequest('`format` must be "json" or a JSON schema')


def _think(think: bool | str | None) -> Json:
    match think:
        case None | "":
            return {}
        case bool():
            return {"chat_template_kwargs": {"enable_thinking": think}}
        case str() if think in LEVELS:
            kwargs = {"enable_thinking": True, "reasoning_effort": think}
            return {"chat_template_kwargs": kwargs}
        case _:
            levels = ", ".join(LEVELS)
            raise BadRequest(f"`think` must be true, false or one of {levels}")
