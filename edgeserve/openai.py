"""OpenAI API: routes, request fields, and the envelopes of errors."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qs

import msgspec

from edgeserve.errors import BadRequest, EdgeserveError
from edgeserve.json_edit import check_values, raw_fields
from edgeserve.wire import MALFORMED, Ability, EngineReport

DialectName = Literal["chat", "completion", "native", "responses", "messages", "plain"]
"""The API format of a route and its streams. `plain` never streams."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """One inference route: the ability it needs, and its API format.

    `needs`: None where any engine can answer. `slot`: whether a request takes a slot;
    without one it is answered while all slots are busy. `also`: llama.cpp's other paths
    for the same route.
    """

    path: str
    needs: Ability | None = None
    dialect: DialectName = "plain"
    method: str = "POST"
    slot: bool = True
    also: tuple[str, ...] = ()


def _aside(path: str, *also: str, method: str = "POST", chat: bool = False) -> Route:
    """Return a route that takes no slot."""
    needs: Ability | None = "chat" if chat else None
    return Route(path=path, needs=needs, method=method, slot=False, also=also)


_ALL = (
    Route(
        path="/v1/chat/completions",
        needs="chat",
        dialect="chat",
        also=("/chat/completions",),
    ),
    Route(path="/v1/completions", needs="completion", dialect="completion"),
    Route(
        path="/v1/responses", needs="chat", dialect="responses", also=("/responses",)
    ),
    Route(path="/v1/messages", needs="chat", dialect="messages"),
    Route(path="/v1/embeddings", needs="embeddings"),
    Route(
        path="/v1/rerank",
        needs="rerank",
        also=("/rerank", "/v1/reranking", "/reranking"),
    ),
    # Without /v1, these two are llama.cpp's own formats.
    Route(
        path="/completion", needs="completion", dialect="native", also=("/completions",)
    ),
    Route(path="/embeddings", needs="embeddings", also=("/embedding",)),
    Route(path="/infill", needs="completion", dialect="native"),
    _aside("/v1/messages/count_tokens", chat=True),
    _aside(
        "/v1/chat/completions/input_tokens", "/chat/completions/input_tokens", chat=True
    ),
    _aside("/v1/responses/input_tokens", "/responses/input_tokens", chat=True),
    _aside("/apply-template", chat=True),
    _aside("/tokenize"),
    _aside("/detokenize"),
    _aside("/props", method="GET"),
    _aside("/slots", method="GET"),
)

ROUTES: dict[str, Route] = {
    path: route for route in _ALL for path in (route.path, *route.also)
}
"""Every route that reaches an engine, by each of its paths; all are llama.cpp's."""

SMALLEST: dict[Ability, tuple[str, dict[str, Any]]] = {
    "completion": ("/completion", {"prompt": "Hi", "n_predict": 1}),
    "embeddings": ("/v1/embeddings", {"input": "Hi"}),
    "rerank": ("/v1/rerank", {"query": "Hi", "documents": ["Hi"]}),
}
"""The cheapest request that shows each ability: its path and body."""

SMALLEST_OF_SERVERS: dict[Ability, tuple[str, dict[str, Any]]] = {
    "chat": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1},
    ),
    "completion": ("/v1/completions", {"prompt": "Hi", "max_tokens": 1}),
    "embeddings": SMALLEST["embeddings"],
    "rerank": SMALLEST["rerank"],
}
"""The same for servers that are no nodes."""

RAW = msgspec.Raw()


class RequestFields(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a request body that routing and validation use."""

    model: str | None = None
    stream: bool | None = None
    n: int | None = None
    n_cmpl: int | None = None
    prompt: msgspec.Raw = RAW
    messages: msgspec.Raw = RAW
    response_fields: Any = None
    tool_choice: Any = None
    echo: Any = None
    suffix: Any = None
    best_of: Any = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n_predict: int | None = None
    return_progress: Any = None
    stream_options: Any = None
    # The following stay raw; `balancer.validation.limits` checks them.
    grammar: msgspec.Raw = RAW
    json_schema: msgspec.Raw = RAW
    response_format: msgspec.Raw = RAW
    tools: msgspec.Raw = RAW
    functions: msgspec.Raw = RAW
    text: msgspec.Raw = RAW
    output_config: msgspec.Raw = RAW
    output_format: msgspec.Raw = RAW
    stop: msgspec.Raw = RAW
    stop_sequences: msgspec.Raw = RAW
    logit_bias: msgspec.Raw = RAW
    preserved_tokens: msgspec.Raw = RAW
    grammar_triggers: msgspec.Raw = RAW
    dry_sequence_breakers: msgspec.Raw = RAW
    samplers: msgspec.Raw = RAW
    n_probs: msgspec.Raw = RAW
    top_logprobs: msgspec.Raw = RAW
    logprobs: msgspec.Raw = RAW
    repeat_last_n: msgspec.Raw = RAW
    penalty_last_n: msgspec.Raw = RAW
    dry_penalty_last_n: msgspec.Raw = RAW
    n_prev: msgspec.Raw = RAW

    @property
    def each(self) -> int:
        """How many answers each prompt gets."""
        return max(self.n_cmpl or self.n or 1, 1)

    @property
    def answers(self) -> int:
        """How many answers there are, where the request has a `prompt`."""
        if not self.prompt or bytes(memoryview(self.prompt)[:1]) != b"[":
            return self.each
        return self.each * prompts(msgspec.json.decode(self.prompt))

    @property
    def budget(self) -> int | None:
        """Most tokens of the answer, None where the client sets no limit."""
        for value in (self.max_completion_tokens, self.max_tokens, self.n_predict):
            if value is not None and value >= 0:
                return value
        return None


def prompts(prompt: object) -> int:
    """Count the prompts; a list that contains a number is one prompt of tokens."""
    if not isinstance(prompt, list) or any(isinstance(each, int) for each in prompt):
        return 1
    return max(len(prompt), 1)


_strict = msgspec.json.Decoder(RequestFields)
_lenient = msgspec.json.Decoder(RequestFields, strict=False)
_whole = msgspec.json.Decoder(dict[str, Any])
T = TypeVar("T")


def asking(route: Route, query: str, body: bytes) -> bytes:
    """Return the request as a body; a GET names its model in the query."""
    if route.method != "GET":
        return body
    return msgspec.json.encode({"model": parse_qs(query).get("model", [""])[-1]})


def read(body: bytes) -> tuple[RequestFields, bytes]:
    """Parse the request fields; return them and a body with their parsed values.

    `16.0` and `"16"` are accepted as numbers and `1` as true, as in other servers.
    Raises BadRequest.
    """
    check_values(body)
    try:
        return _strict.decode(body), body
    except msgspec.ValidationError:
        request = _decoded(body, _lenient)
    except MALFORMED as error:
        raise _malformed(error) from error
    sent = raw_fields(body)
    meant = {name: getattr(request, name) for name in request.__struct_fields__}
    return request, msgspec.json.encode(
        {name: meant.get(name, value) for name, value in sent.items()}
    )


def _decoded(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(body)
    except MALFORMED as error:
        raise _malformed(error) from error


def _malformed(error: Exception) -> BadRequest:
    return BadRequest(f"the request body is not valid: {error}")


def fields(body: bytes) -> dict[str, Any]:
    """Decode the whole body as an object, or raise BadRequest."""
    return _decoded(body, _whole)


def normal(name: str) -> str:
    """Normalize a model name: case, `.gguf`, `:latest`.

    The label after `:` becomes upper-case, as GGUF types are written.
    """
    if not name.isascii():
        name = unicodedata.normalize("NFC", name)
    model, _, label = name.strip().partition(":")
    model = model.lower().removesuffix(".gguf")
    if not label or label.lower() == "latest":
        return model
    return f"{model}:{label.upper().removesuffix('.GGUF')}"


def names_of(engine: EngineReport) -> frozenset[str]:
    """Return the names of an engine for clients: its model, variant and file."""
    names = (engine.model, engine.variant, engine.file)
    return frozenset(normal(name) for name in names if name)


ANTHROPIC = "/v1/messages"
OLLAMA = "/api/"
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's error types by status."""


def rendered(error: EdgeserveError, path: str, request_id: str = "") -> bytes:
    """Return the error body in the format of `path`."""
    if path.startswith(OLLAMA):
        return json.dumps({"error": str(error)}).encode()
    if not path.startswith(ANTHROPIC):
        return error.body()
    return json.dumps(anthropic(error, request_id)).encode()


def headers(error: EdgeserveError, path: str) -> dict[str, str]:
    """Return the headers of an error response."""
    if not path.startswith(ANTHROPIC):
        return error.headers()
    return {**error.headers(), **EdgeserveError.headers(error)}


def anthropic(error: EdgeserveError, request_id: str = "") -> dict[str, Any]:
    """Return the error in Anthropic's format, as a body or as an event."""
    kind = "invalid_request_error" if error.status < 500 else "api_error"
    kind = _KINDS.get(error.status, kind)
    inner = {"type": kind, "message": str(error), "code": error.code}
    return {"type": "error", "error": inner, "request_id": request_id or None}


def path_in(data: bytes) -> str:
    """Return the path in the first line of a malformed request."""
    line = data[:4096].lstrip(b"\r\n").split(b"\n", 1)[0].split(b" ")
    target = line[1] if len(line) > 1 else b""
    return target.partition(b"?")[0].decode("latin-1")


def code(body: bytes) -> str:
    """Return the `code` of an error body, or an empty string."""
    return str(error_in(body).get("code", ""))


def retry_after(headers: Mapping[str, str]) -> int | None:
    """Return the seconds after which an answer says to come back; no date, no year."""
    after = headers.get("retry-after", "").strip()
    usable = after.isascii() and after.isdecimal() and len(after) < 6
    return int(after) if usable else None


def message(body: bytes) -> str:
    """Return the message of an error body, or the first bytes of the body."""
    text = error_in(body).get("message")
    return str(text) if text else body[:200].decode(errors="replace")


def error_in(body: bytes) -> dict[str, Any]:
    """Return the `error` object of a body, {} where there is none."""
    try:
        error = msgspec.json.decode(body, type=dict[str, Any]).get("error")
    except msgspec.DecodeError:
        return {}
    return error if isinstance(error, dict) else {}
