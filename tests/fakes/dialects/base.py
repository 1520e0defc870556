"""Dialect of a server: what it answers to each request, and in which form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from tests.fakes.dialects.server import Answer, Asked, answer, streamed

Json = dict[str, Any]

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
EMBEDDINGS, MODELS = "/v1/embeddings", "/v1/models"

TEXTS = ("Hello", " there, ", "you")
"""What every model says."""

SAID = "".join(TEXTS)

THOUGHT = "hm"
"""What every model that reasons thinks before."""

CALL = {"name": "weather", "arguments": '{"city": "Bonn"}'}

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}

DONE = b"data: [DONE]\n\n"

LLAMA_FIELDS = frozenset(("cache_prompt", "id_slot", "return_progress", "n_predict"))


class Dialect:
    """One kind of server; this one has OpenAI's form and nothing else.

    `kind`: as which it is to be recognised. `width`, `busy` and `context`: what is to
    be known of it. `reasoning`: its field, "" where there is none. `usage`: when its
    streams have one. `knows`: the fields of a request, all where it ignores others.
    """

    name: ClassVar[str] = "any server with OpenAI's API"
    kind: ClassVar[str] = "openai"
    model: ClassVar[str] = "org/small"
    owner: ClassVar[str] = "me"
    width: ClassVar[int] = 8
    busy: ClassVar[int] = 0
    context: ClassVar[int] = 0
    reasoning: ClassVar[str] = ""
    usage: ClassVar[Literal["asked", "always", "never"]] = "asked"
    ends_with_done: ClassVar[bool] = True
    calls_tools: ClassVar[bool] = True
    completes: ClassVar[bool] = True
    embedder: ClassVar[str] = ""
    version: ClassVar[str] = "HTTP/1.1"
    knows: ClassVar[frozenset[str]] = frozenset()
    refused: ClassVar[int] = 401
    overload: ClassVar[int] = 503
    failing_key: ClassVar[Any] = {"error": {"message": "Invalid API key", "code": 401}}

    def card(self, model: str) -> Json:
        """Build an entry of the list of models."""
        return {"id": model, "object": "model", "created": 1, "owned_by": self.owner}

    def gets(self) -> Mapping[str, Any]:
        """Build what is answered to GET requests."""
        ids = [each for each in (self.model, self.embedder) if each]
        return {MODELS: {"object": "list", "data": [self.card(each) for each in ids]}}

    def guards(self, path: str) -> bool:
        """Whether a path wants the key."""
        del path
        return True

    def answer(self, asked: Asked) -> Answer:
        """Answer a request that has the right key."""
        if asked.method == "GET":
            found = self.gets().get(asked.path)
            return self.unknown(asked) if found is None else answer(found)
        request = asked.json
        if self.knows and (strange := request.keys() - self.knows):
            return self.refuses(strange)
        if not asked.path.startswith("/v1/"):
            return self.unknown(asked)
        if request["model"] not in {self.model, self.embedder}:
            return self.error(404, f"The model `{request['model']}` does not exist.")
        if asked.path == EMBEDDINGS and self.embedder:
            return answer(self.embedding())
        if asked.path == CHAT or (asked.path == COMPLETION and self.completes):
            chats = asked.path == CHAT
            if request.get("stream"):
                return streamed(*self.events(request, chats=chats))
            return answer(self.whole(request, chats=chats))
        return self.unknown(asked)

    def refuses(self, strange: set[str]) -> Answer:
        """Refuse request fields."""
        return self.error(400, f"Unknown fields: {strange}")

    def unknown(self, asked: Asked) -> Answer:
        """Answer to a path that it does not have."""
        del asked
        return answer({"detail": "Not Found"}, 404)

    def error(self, status: int, sentence: str, kind: str = "BadRequest") -> Answer:
        """Build an error."""
        inner = {"message": sentence, "type": kind, "param": None, "code": status}
        return answer({"error": inner}, status)

    def too_long(self) -> Answer:
        """Refuse a prompt that does not fit."""
        return self.error(400, "This model's maximum context length is 9 tokens.")

    def overloaded(self) -> Answer:
        """Refuse because too many requests wait."""
        return self.error(self.overload, "Too many requests")

    def broken(self) -> Answer:
        """Fail, as such a server does."""
        return self.error(500, "CUDA out of memory", "InternalServerError")

    def died(self) -> list[bytes | None]:
        """Build what a stream ends with when the engine dies behind it."""
        return [None]

    def line(self, event: Json) -> bytes:
        """Write one event."""
        return b"data: %b\n\n" % json.dumps(event).encode()

    def head(self, kind: str) -> Json:
        """Build what all events of an answer have."""
        return {"id": "c1", "object": kind, "created": 1, "model": self.model}

    def choice(self, delta: Json, finish: str | None) -> Json:
        """Build the choice of an event."""
        return {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}

    def chunk(self, delta: Json, finish: str | None = None) -> bytes:
        """Write one event of a chat."""
        head = self.head("chat.completion.chunk")
        return self.line({**head, "choices": [self.choice(delta, finish)]})

    def events(self, request: Json, *, chats: bool) -> list[bytes | None]:
        """Write all events of a stream."""
        if not chats:
            texts = [self._text(each, None) for each in TEXTS] + [
                self._text("", "stop")
            ]
        elif request.get("tools"):
            texts = self.calls()
        else:
            texts = [*self.begins(), *self.says(), *self.stops("stop")]
        asked = (request.get("stream_options") or {}).get("include_usage")
        counted = self.usage == "asked" and asked
        return [*texts, *([self.counts()] if counted else []), *self.done()]

    def done(self) -> list[bytes]:
        """Write what comes last."""
        return [DONE] if self.ends_with_done else []

    def _text(self, text: str, finish: str | None) -> bytes:
        choice = {"index": 0, "text": text, "finish_reason": finish}
        return self.line({**self.head("text_completion"), "choices": [choice]})

    def begins(self) -> list[bytes]:
        """Write what comes before the text."""
        first = self.chunk({"role": "assistant", "content": ""})
        thought = [self.chunk({self.reasoning: THOUGHT})] if self.reasoning else []
        return [first, *thought]

    def says(self) -> list[bytes]:
        """Write the text."""
        return [self.chunk({"content": each}) for each in TEXTS]

    def stops(self, why: str) -> list[bytes]:
        """Write the reason for the end."""
        return [self.chunk({}, why)]

    def calls(self) -> list[bytes]:
        """Write the call of a tool, its arguments in two parts."""
        start, end = CALL["arguments"][:9], CALL["arguments"][9:]
        first = {"index": 0, "id": "t1", "type": "function"}
        named = {**first, "function": {"name": CALL["name"], "arguments": start}}
        rest = {"index": 0, "function": {"arguments": end}}
        return [
            self.chunk({"role": "assistant", "content": None, "tool_calls": [named]}),
            self.chunk({"tool_calls": [rest]}),
            *self.stops("tool_calls"),
        ]

    def counts(self) -> bytes:
        """Write the usage."""
        head = self.head("chat.completion.chunk")
        return self.line({**head, "choices": [], "usage": USAGE})

    def whole(self, request: Json, *, chats: bool) -> Json:
        """Build an answer that is not streamed."""
        if not chats:
            choice: Json = {"index": 0, "text": SAID, "finish_reason": "stop"}
            head = self.head("text_completion")
            return {**head, "choices": [choice], "usage": USAGE}
        message: Json = {"role": "assistant", "content": SAID}
        if self.reasoning:
            message[self.reasoning] = THOUGHT
        finish = "stop"
        if request.get("tools"):
            call = {"id": "t1", "type": "function", "function": CALL}
            message, finish = {"role": "assistant", "tool_calls": [call]}, "tool_calls"
        choice = {"index": 0, "message": message, "finish_reason": finish}
        head = self.head("chat.completion")
        return {**head, "choices": [choice], "usage": USAGE}

    def embedding(self) -> Json:
        """Build an embedding."""
        one = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        return {"object": "list", "data": [one], "model": self.embedder, "usage": usage}
