"""Engines for large GPUs: vLLM, SGLang, TGI, TensorRT-LLM, and vLLM below Ray Serve."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.fakes.dialects.base import DONE, Dialect, Json
from tests.fakes.dialects.server import Answer, Asked, answer


class FlatErrors(Dialect):
    """Errors as SGLang and TensorRT-LLM write them."""

    def error(self, status: int, sentence: str, kind: str = "BadRequest") -> Answer:
        """See `Dialect.error`."""
        flat = {"object": "error", "message": sentence, "type": kind, "param": None}
        return answer({**flat, "code": status}, status)


class VLLM(Dialect):
    """vLLM: an engine that dies sends an error, and `[DONE]` after it."""

    name, kind, owner, model = "vLLM", "vllm", "vllm", "Qwen/Small"
    width, busy, context = 64, 3, 2048
    reasoning = "reasoning"
    embedder = "org/embed-small"
    failing_key = {"error": "Unauthorized"}  # noqa: RUF012

    def card(self, model: str) -> Json:
        """See `Dialect.card`."""
        return {**super().card(model), "max_model_len": 2048, "root": "/m"}

    def gets(self) -> Mapping[str, Any]:
        """See `Dialect.gets`."""
        return {
            **super().gets(),
            "/version": {"version": "0.32.0"},
            "/health": b"",
            "/load": {"server_load": 0},
            "/metrics": b"# TYPE x gauge\n"
            b'vllm:num_requests_running{engine="0",model_name="m"} 1.0\n'
            b'vllm:num_requests_running{engine="1",model_name="m"} 1.0\n'
            b'vllm:num_requests_waiting{engine="0",model_name="m"} 1.0\n'
            b'vllm:num_requests_waiting_by_reason{reason="capacity"} 9.0\n',
        }

    def guards(self, path: str) -> bool:
        """See `Dialect.guards`."""
        return path.startswith(("/v1", "/v2", "/inference", "/cohere"))

    def choice(self, delta: Json, finish: str | None) -> Json:
        """See `Dialect.choice`."""
        more: Json = {"token_ids": None}
        if finish:
            more["stop_reason"] = None
        return {**super().choice(delta, finish), **more}

    def died(self) -> list[bytes | None]:
        """See `Dialect.died`."""
        inner = {"message": "EngineCore died", "type": "Internal", "code": 500}
        return [self.line({"error": inner}), DONE]


class SGLang(FlatErrors):
    """SGLang: an error of a stream has another form than one of an answer."""

    name, kind, owner = "SGLang", "sglang", "sglang"
    width, busy, context = 20, 3, 4096
    reasoning = "reasoning_content"
    embedder = "org/bge-small"

    def card(self, model: str) -> Json:
        """See `Dialect.card`."""
        return {**super().card(model), "max_model_len": 4096, "root": model}

    def gets(self) -> Mapping[str, Any]:
        """See `Dialect.gets`; it speaks Ollama, too."""
        load = {"dp_rank": 0, "num_running_reqs": 2, "num_waiting_reqs": 1}
        return {
            **super().gets(),
            "/": b"Ollama is running",
            "/api/version": {"version": "0.5.23"},
            "/model_info": {"model_path": self.model, "is_generation": True},
            "/ready": b"",
            "/v1/loads": {"loads": [{**load, "max_running_requests": 20}]},
        }

    def guards(self, path: str) -> bool:
        """See `Dialect.guards`."""
        return not path.startswith(("/health", "/ready", "/metrics"))

    def choice(self, delta: Json, finish: str | None) -> Json:
        """See `Dialect.choice`."""
        return {**super().choice(delta, finish), "matched_stop": None}

    def died(self) -> list[bytes | None]:
        """See `Dialect.died`: the scheduler has aborted the request."""
        return [self.chunk({}, "abort"), DONE]


class TGI(Dialect):
    """TGI: its errors are texts, 429 means full, `max_completion_tokens` is unknown."""

    name, kind, owner = "TGI", "tgi", "org/small"
    width, busy, context = 32, 4, 2048
    overload = 429

    def gets(self) -> Mapping[str, Any]:
        """See `Dialect.gets`."""
        info = {"model_id": self.model, "router": "text-generation-router"}
        limits = {"max_concurrent_requests": 128, "max_total_tokens": 2048}
        return {
            **super().gets(),
            "/info": {**info, **limits, "version": "3.3.7"},
            "/health": b"",
            "/metrics": b"tgi_batch_current_size 3\ntgi_queue_size 1\n",
        }

    def guards(self, path: str) -> bool:
        """See `Dialect.guards`."""
        return path.startswith("/v1/c")

    def answer(self, asked: Asked) -> Answer:
        """See `Dialect.answer`."""
        if asked.method == "POST" and "max_completion_tokens" in asked.json:
            return self.error(422, "unknown field `max_completion_tokens`")
        return super().answer(asked)

    def error(self, status: int, sentence: str, kind: str = "validation") -> Answer:
        """See `Dialect.error`."""
        return answer({"error": sentence, "error_type": kind}, status)

    def too_long(self) -> Answer:
        """See `Dialect.too_long`."""
        said = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 9"
        return self.error(422, said)

    def overloaded(self) -> Answer:
        """See `Dialect.overloaded`."""
        return self.error(429, "Model is overloaded", "overloaded")

    def broken(self) -> Answer:
        """See `Dialect.broken`."""
        return self.error(424, "Request failed during generation", "generation")

    def died(self) -> list[bytes | None]:
        """See `Dialect.died`."""
        return [self.line({"error": "Request failed", "error_type": "generation"})]


class TensorRTLLM(FlatErrors):
    """TensorRT-LLM: reading `/metrics` empties it for whoever else reads it."""

    name, kind, owner = "TensorRT-LLM", "tensorrt-llm", "tensorrt_llm"
    width, busy = 16, 3

    def gets(self) -> Mapping[str, Any]:
        """See `Dialect.gets`."""
        return {
            **super().gets(),
            "/version": {"version": "1.2.0"},
            "/health": b"",
            "/metrics": [{"iter": 1, "numActiveRequests": 3}],
            "/prometheus/metrics": b'trtllm_num_requests_running{model_name="m"} 2\n'
            b'trtllm_num_requests_waiting{model_name="m"} 1\n'
            b'trtllm_max_batch_size_static{model_name="m"} 16\n',
        }

    def guards(self, path: str) -> bool:
        """See `Dialect.guards`; it has no keys."""
        del path
        return False


class RayServe(VLLM):
    """Ray Serve's LLM application: vLLM's dialect behind Ray's proxy."""

    name, kind, owner = "Ray Serve LLM", "ray-serve", "organization-owner"
    model, embedder = "small", ""
    width, busy, context = 8, 0, 1024

    def card(self, model: str) -> Json:
        """See `Dialect.card`."""
        data = {"model_id": model, "max_request_context_length": 1024}
        return {**Dialect.card(self, model), "permission": [], "metadata": data}

    def gets(self) -> Mapping[str, Any]:
        """See `Dialect.gets`."""
        routes = {"/-/routes": {"/": "llm"}, "/-/healthz": b"success"}
        return {**Dialect.gets(self), **routes}

    def guards(self, path: str) -> bool:
        """See `Dialect.guards`."""
        return not path.startswith("/-/")

    def died(self) -> list[bytes | None]:
        """See `Dialect.died`."""
        return [None]


class RayApplication(Dialect):
    """An application that somebody wrote for Ray Serve: chats, and no more."""

    name, kind = "a Ray Serve application", "ray-serve"
    completes, calls_tools = False, False
    usage = "never"
    ends_with_done = False

    def gets(self) -> Mapping[str, Any]:
        """See `Dialect.gets`."""
        routes = {"/-/routes": {"/": "toy"}, "/-/healthz": b"success"}
        return {**super().gets(), **routes}

    def guards(self, path: str) -> bool:
        """See `Dialect.guards`."""
        return not path.startswith("/-/")

    def line(self, event: Json) -> bytes:
        """See `Dialect.line`."""
        return b"data:%b\r\n\r\n" % json.dumps(event, separators=(",", ":")).encode()

    def unknown(self, asked: Asked) -> Answer:
        """See `Dialect.unknown`."""
        return answer(b"Path '%b' not found." % asked.path.encode(), 404)

    def error(self, status: int, sentence: str, kind: str = "") -> Answer:
        """See `Dialect.error`."""
        del kind
        return answer(sentence.encode(), status)


ENGINES = (VLLM(), SGLang(), TGI(), TensorRTLLM(), RayServe(), RayApplication())
