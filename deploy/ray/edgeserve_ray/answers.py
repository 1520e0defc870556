"""Answers that the application makes itself: its model, and errors. Pure."""

from __future__ import annotations

import json
from typing import Any

from edgeserve_ray.settings import EngineSettings

EVENTS = "text/event-stream"

OWNER = "ray-serve"

RELAYED = frozenset(("/v1/chat/completions", "/v1/completions"))
"""What an engine answers."""

STARTING = "the first replica has not loaded its model yet"
BROKEN_OFF = "the replica ended in the middle of this answer"
NO_REPLICA = "each replica that got this request has ended; see Ray's logs"


def model_list(settings: EngineSettings) -> dict[str, Any]:
    """Return the list of models."""
    card = {
        "id": settings.served,
        "object": "model",
        "created": 0,
        "owned_by": OWNER,
        "max_model_len": settings.context,
    }
    return {"object": "list", "data": [card]}


def error(sentence: str, status: int) -> dict[str, Any]:
    """Return an error in OpenAI's form."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": sentence, "type": kind, "code": status}}


def error_event(sentence: str) -> bytes:
    """Return the event that ends a stream that cannot go on: `[DONE]` never follows."""
    return b"data: %b\n\n" % json.dumps(error(sentence, 502)).encode()
