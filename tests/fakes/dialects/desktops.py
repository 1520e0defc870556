"""Servers for one machine: llama-server, Ollama, LM Studio, LocalAI, and two in Python.

They load models when they are asked for, but for the first and the last two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.fakes.dialects.base import TEXTS, USAGE, Dialect, Json
from tests.fakes.dialects.server import Answer, Asked, answer

LLAMA_CPP = {"Server": "llama.cpp"}


class LlamaServer(Dialect):
    """llama-server, with its slots and its timings."""

    name, kind, owner = "llama-server", "llama-server", "llamacpp"
    model = "/models/Small-Q4_K_M.gguf"
    width, busy, context = 3, 1, 1024
    reasoning = "reasoning_content"
    failing_key = {  # noqa: RUF012
        "error": {"message": "Invalid API Key", "type": "authentication_error"}
    }

    def gets(self) -> Mapping[str, Any]:
        """See `Dialect.gets`."""
        return {
            **super().gets(),
            "/props": {
                "build_info": "b11434",
                "total_slots": 3,
                "default_generation_settings": {"n_ctx": 1024},
                "modalities": {"vision": False, "audio": False},
            },
            "/health": {"status": "ok"},
            "/slots": [{"id": each, "is_processing": each == 0} for each in range(3)],
            "/metrics": answer(self.error(501, "This server has no metrics"), 501),
        }

    def guards(self, path: str) -> bool:
        """See `Dialect.guards`."""
        return path not in {"/health", "/v1/models", "/models"}

    def too_long(self) -> Answer:
        """See `Dialect.too_long`."""
        said = "the request exceeds the available context size, try increasing it"
        return self.error(400, said, "exceed_context_size_error")

    def overloaded(self) -> Answer:
        """See `Dialect.overloaded`."""
        return self.error(503, "Loading model", "unavailable_error")


class Router(LlamaServer):
    """llama-server without a model: a router that starts one for each model."""

    name = "llama-server's router"
    model = "small"
    width, busy, context = 1, 0, 0

    def card(self, model: str) -> Json:
        """See `Dialect.card`."""
        return {**super().card(model), "status": {"value": "loaded", "args": []}}

    def gets(self) -> Mapping[str, Any]:
        """See `Dialect.gets`."""
        needs = self.error(400, "model name is missing from the request")
        listed = Dialect.gets(self)["/v1/models"]
        broken = {"value": "unloaded", "failed": True, "exit_code": 1}
        cards = [*listed["data"], {**self.card("broken"), "status": broken}]
        return {
            "/v1/models": {**listed, "data": cards},
            "/props": {"role": "router", "max_instances": 4, "models_autoload": True},
            "/health": {"status": "ok"},
            "/slots": needs,
            "/metrics": needs,
        }


class Ollama(Dialect):
    """Ollama: the reason for an end comes in an event of its own."""

    name, kind, owner, model = "Ollama", "ollama", "library", "small:latest"
    width, context = 1, 8192
    reasoning = "reasoning"
    embedder = "nomic-embed-text:v1.5"

    def gets(self) -> Mapping[str, Any]:
        """See `Dialect.gets`."""
        tags = [{"name": self.model}, {"name": "big:cloud", "remote_host": "x"}]
        listed = super().gets()["/v1/models"]
        cards = [*listed["data"], self.card("big:cloud")]
        return {
            "/v1/models": {**listed, "data": cards},
            "/": b"Ollama is running",
            "/api/version": {"version": "0.12.0"},
            "/api/tags": {"models": tags},
            "/api/ps": {"models": [{"name": self.model, "context_length": 8192}]},
        }

    def guards(self, path: str) -> bool:
        """See `Dialect.guards`; it has no keys."""
        del path
        return False

    def unknown(self, asked: Asked) -> Answer:
        """See `Dialect.unknown`."""
        del asked
        return answer(b"404 page not found", 404)

    def head(self, kind: str) -> Json:
        """See `Dialect.head`."""
        return {**super().head(kind), "system_fingerprint": "fp_ollama"}

    def error(self, status: int, sentence: str, kind: str = "api_error") -> Answer:
        """See `Dialect.error`."""
        inner = {"message": sentence, "type": kind, "param": None, "code": None}
        return answer({"error": inner}, status)

    def overloaded(self) -> Answer:
        """See `Dialect.overloaded`."""
        return self.error(503, "server busy, please try again.  maximum pending")


class LMStudio(Dialect):
    """LM Studio from 0.4 on: 200 with an error to every path that it does not know."""

    name, kind, owner, model = "LM Studio", "lmstudio", "organization_owner", "small"
    width, context = 2, 3000
    reasoning = "reasoning"
    embedder = "text-embedding-small"

    def gets(self) -> Mapping[str, Any]:
        """See `Dialect.gets`."""
        config = {"context_length": 3000, "parallel": 2}
        loaded = [{"id": self.model, "config": config}]
        chats = {"key": self.model, "type": "llm", "loaded_instances": loaded}
        embeds = {"key": self.embedder, "type": "embedding", "loaded_instances": []}
        return {
            **super().gets(),
            "/lmstudio-greeting": {"lmstudio": True},
            "/api/v1/models": {
                "models": [
                    {**chats, "max_context_length": 32768, "format": "gguf"},
                    {**embeds, "max_context_length": 2048, "format": "gguf"},
                ]
            },
        }

    def guards(self, path: str) -> bool:
        """See `Dialect.guards`."""
        return path != "/lmstudio-greeting"

    def unknown(self, asked: Asked) -> Answer:
        """See `Dialect.unknown`."""
        said = f"Unexpected endpoint or method. ({asked.method} {asked.path})"
        return answer({"error": said})


class OlderLMStudio(LMStudio):
    """LM Studio before 0.4."""

    name = "LM Studio before 0.4"
    width, context = 1, 3000

    def gets(self) -> Mapping[str, Any]:
        """See `Dialect.gets`."""
        chats = {"id": self.model, "type": "llm", "state": "loaded"}
        told = {"max_context_length": 32768, "loaded_context_length": 3000}
        embeds = {"id": self.embedder, "type": "embeddings", "state": "not-loaded"}
        cards = [chats | told, embeds | {"max_context_length": 2048}]
        named = [{**each, "compatibility_type": "gguf"} for each in cards]
        return {**Dialect.gets(self), "/api/v0/models": {"data": named}}


class LocalAI(Dialect):
    """LocalAI: it answers as Ollama, and has models that write no text."""

    name, kind, model = "LocalAI", "localai", "small"
    width = 1
    embedder = "all-minilm"

    def card(self, model: str) -> Json:
        """See `Dialect.card`."""
        return {"id": model, "object": "model"}

    def gets(self) -> Mapping[str, Any]:
        """See `Dialect.gets`."""
        can = {self.model: ["chat", "tools", "completion"], "flux": ["image"]}
        can[self.embedder] = ["embeddings"]
        listed = super().gets()["/v1/models"]
        told = [
            {**self.card(each), "capabilities": words} for each, words in can.items()
        ]
        return {
            "/v1/models": {**listed, "data": [*listed["data"], self.card("flux")]},
            "/v1/models/capabilities": {"object": "list", "data": told},
            "/.well-known/localai.json": {
                "version": "v4.9.0",
                "endpoints": {"models": "/v1/models"},
            },
            "/readyz": b"",
            "/": b"Ollama is running",
            "/api/version": {"version": "0.9.0"},
            "/api/tags": {"models": []},
            "/version": {"version": "v4.9.0"},
        }

    def guards(self, path: str) -> bool:
        """See `Dialect.guards`."""
        return path not in {"/.well-known/localai.json", "/readyz"}

    def broken(self) -> Answer:
        """See `Dialect.broken`: errors can be made opaque."""
        return Answer(500)


OPENAI_FIELDS = frozenset(
    (
        "model", "messages", "prompt", "stream", "stream_options", "max_tokens",
        "max_completion_tokens", "temperature", "top_p", "seed", "stop", "tools",
        "tool_choice", "n", "user", "logprobs",
    )
)  # fmt: skip


class TransformersServe(Dialect):
    """`transformers serve`: any other field is an error; no `[DONE]`, usage unasked."""

    name = "transformers serve"
    knows = OPENAI_FIELDS
    usage = "always"
    ends_with_done = False
    completes = False

    def gets(self) -> Mapping[str, Any]:
        """See `Dialect.gets`."""
        return {**super().gets(), "/health": {"status": "ok"}}

    def guards(self, path: str) -> bool:
        """See `Dialect.guards`; it has no keys."""
        del path
        return False

    def refuses(self, strange: set[str]) -> Answer:
        """See `Dialect.refuses`."""
        return answer({"detail": f"Unexpected fields in the request: {strange}"}, 400)

    def head(self, kind: str) -> Json:
        """See `Dialect.head`."""
        return {**super().head(kind), "model": f"{self.model}@main"}

    def stops(self, why: str) -> list[bytes]:
        """See `Dialect.stops`."""
        choices = [self.choice({}, why)]
        head = self.head("chat.completion.chunk")
        return [self.line({**head, "choices": choices, "usage": USAGE})]

    def error(self, status: int, sentence: str, kind: str = "") -> Answer:
        """See `Dialect.error`."""
        del kind
        return answer({"detail": sentence}, status)

    def broken(self) -> Answer:
        """See `Dialect.broken`."""
        return answer(b"Internal Server Error", 500)

    def died(self) -> list[bytes | None]:
        """See `Dialect.died`."""
        return [b'data: {"error": "CUDA "error""}\n\n']


class MLX(Dialect):
    """`mlx_lm.server`: HTTP/1.0, progress in comments, usage in an odd event."""

    name = "mlx_lm.server"
    version = "HTTP/1.0"
    reasoning = "reasoning"

    def guards(self, path: str) -> bool:
        """See `Dialect.guards`; it has no keys."""
        del path
        return False

    def begins(self) -> list[bytes]:
        """See `Dialect.begins`."""
        read = [b": keepalive %d/33\n\n" % each for each in (16, 32, 33)]
        return [*read, self.chunk({"role": "assistant", "reasoning": "hm"})]

    def says(self) -> list[bytes]:
        """See `Dialect.says`; each event names the role again."""
        return [self.chunk({"role": "assistant", "content": each}) for each in TEXTS]

    def counts(self) -> bytes:
        """See `Dialect.counts`."""
        head = self.head("chat.completion")
        return self.line({**head, "choices": [], "usage": USAGE})

    def error(self, status: int, sentence: str, kind: str = "") -> Answer:
        """See `Dialect.error`."""
        del kind
        return answer({"error": sentence}, status)


DESKTOPS = (
    LlamaServer(), Router(), Ollama(), LMStudio(), OlderLMStudio(), LocalAI(),
    TransformersServe(), MLX(), Dialect(),
)  # fmt: skip
