"""The routes and request fields we look at; everything else passes untouched."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from edgeserve.errors import BadRequest
from edgeserve.wire import MALFORMED, Ability, EngineReport

Dialect = Literal["chat", "completion", "native", "responses", "messages", "plain"]
"""How an answer streams: which events carry text, which closes. `plain` never does."""


@dataclass(frozen=True)
class Route:
    """One inference route: what an engine must be able to do, and how it answers."""

    path: str
    needs: Ability
    dialect: Dialect


ROUTES: dict[str, Route] = {
    route.path: route
    for route in (
        Route("/v1/chat/completions", "chat", "chat"),
        Route("/v1/completions", "completion", "completion"),
        Route("/v1/responses", "chat", "responses"),
        Route("/v1/messages", "chat", "messages"),
        Route("/v1/messages/count_tokens", "chat", "plain"),
        Route("/v1/embeddings", "embeddings", "plain"),
        Route("/v1/rerank", "rerank", "plain"),
        Route("/completion", "completion", "native"),
        Route("/infill", "completion", "native"),
        Route("/tokenize", "completion", "plain"),
        Route("/detokenize", "completion", "plain"),
        Route("/apply-template", "chat", "plain"),
    )
}
"""Every POST route that reaches an engine, by path."""


RAW = msgspec.Raw()


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a request body that decide where and how it goes."""

    model: str = ""
    stream: bool | None = None
    n: int | None = None
    n_cmpl: int | None = None
    prompt: msgspec.Raw = RAW
    response_fields: Any = None
    tool_choice: Any = None
    echo: Any = None
    suffix: Any = None
    best_of: Any = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n_predict: int | None = None
    return_progress: Any = None
    # What constrains an answer is not read here, see `balancer.constraints`.
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
        """How many answers each prompt is to get."""
        return max(self.n_cmpl or self.n or 1, 1)

    @property
    def answers(self) -> int:
        """How many answers there are to be, where the request has a `prompt`."""
        if bytes(memoryview(self.prompt)[:1]) != b"[":
            return self.each
        return self.each * prompts(msgspec.json.decode(self.prompt))

    @property
    def budget(self) -> int | None:
        """Most tokens the answer may have, where the caller says so."""
        for value in (self.max_completion_tokens, self.max_tokens, self.n_predict):
            if value is not None and value >= 0:
                return value
        return None


def prompts(prompt: object) -> int:
    """Count the prompts: a list that holds a number is one, of tokens."""
    if not isinstance(prompt, list) or any(isinstance(each, int) for each in prompt):
        return 1
    return max(len(prompt), 1)


_asked = msgspec.json.Decoder(Asked)


def read(body: bytes) -> Asked:
    """Read those fields, or raise BadRequest naming what is wrong."""
    try:
        return _asked.decode(body)
    except MALFORMED as error:
        raise BadRequest(f"the request body is not valid: {error}") from error


def fields(body: bytes) -> dict[str, Any]:
    """Decode the whole body as an object, or raise BadRequest."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except MALFORMED as error:
        raise BadRequest(f"the request body is not valid: {error}") from error


def normal(name: str) -> str:
    """Fold the spellings of one model name: case, `.gguf`, `:latest`.

    The label after `:` keeps the case that GGUF types are written in.
    """
    if not name.isascii():
        name = unicodedata.normalize("NFC", name)
    model, _, label = name.strip().partition(":")
    model = model.lower().removesuffix(".gguf")
    if not label or label.lower() == "latest":
        return model
    return f"{model}:{label.upper().removesuffix('.GGUF')}"


def names_of(engine: EngineReport) -> frozenset[str]:
    """Return what clients may call an engine: its model, its variant or its file."""
    names = (engine.model, engine.variant, engine.file)
    return frozenset(normal(name) for name in names if name)
