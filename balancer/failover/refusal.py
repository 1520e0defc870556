"""Engine refusals: an engine's own error, in the form that its client gets. Pure.

llama.cpp answers 500 or 501 to requests that can never succeed; OpenAI's and
Anthropic's clients then send them three times. Its error for a prompt that is too long
is understood by no client but its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from balancer.health.faults import fault_of_500
from edgeserve.errors import EdgeserveError
from edgeserve.openai import code, error_in, message

TOO_LONG = "exceed_context_size_error"
PASSING = "Context size has been exceeded"
"""Several requests share the context: another time there may be room."""

_NEVER = {
    "input is not supported": "; no engine of this model takes such input",
    "Infill is not supported": "; ask a model that was trained to fill in",
    "does not support embeddings": "; ask an embedding model",
    "does not support reranking": "; ask a reranking model",
}
"""What the client can do, by what the engine says that it cannot do."""


class EngineRefusal(EdgeserveError):
    """An engine's own error, passed on byte for byte where that is clear enough."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self._error = _amended(status, body)
        super().__init__(self._error["message"] if self._error else message(body))
        self.status = 400 if self._error else status
        self.code = self._error.get("code") or code(body) or "engine_error"
        self._headers = headers
        self._body = body

    def envelope(self) -> dict[str, object]:
        """Return the engine's error."""
        return self._error or error_in(self._body) or super().envelope()

    def body(self) -> bytes:
        """Return the bytes that the engine sent, or the amended error."""
        if self._error:
            return msgspec.json.encode({"error": self._error})
        return self._body

    def headers(self) -> dict[str, str]:
        """Return the engine's header fields."""
        return dict(self._headers)


def _amended(status: int, body: bytes) -> dict[str, Any]:
    """Return the error that the client should get, {} to leave it as it is."""
    error = error_in(body)
    if status == 400 and error.get("type") == TOO_LONG:
        return {**error, "code": "context_length_exceeded", "message": _too_long(error)}
    sentence = message(body)
    if not error or not _is_hopeless(status, error) or sentence.startswith(PASSING):
        return {}
    advice = next((text for sign, text in _NEVER.items() if sign in sentence), "")
    fixed = {"code": 400, "type": "invalid_request_error"}
    return {**error, **fixed, "message": sentence.strip().rstrip(".") + advice}


def _is_hopeless(status: int, error: Mapping[str, Any]) -> bool:
    """Whether a request can never succeed, though the status suggests that it might."""
    return status == 501 or (status == 500 and fault_of_500(error) == "none")


def _too_long(error: Mapping[str, Any]) -> str:
    tokens, context = error.get("n_prompt_tokens"), error.get("n_ctx")
    # Clients look for the words of OpenAI, Anthropic or llama.cpp.
    return (
        f"the prompt is too long: it has {tokens} tokens, which exceeds the available"
        f" context size, the maximum context length here, of {context} tokens; shorten"
        " it, or ask a model, or run a node, with a longer context"
    )
