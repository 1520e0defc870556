"""The envelope of an error: OpenAI's, or Anthropic's on Anthropic's routes. Pure."""

from __future__ import annotations

import json
from typing import Any

from edgeserve.errors import EdgeserveError

ANTHROPIC = "/v1/messages"
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's names for what a status means."""


def rendered(error: EdgeserveError, path: str, request_id: str = "") -> bytes:
    """Return the body of the answer that a client of `path` understands."""
    if not path.startswith(ANTHROPIC):
        return error.body()
    return json.dumps(anthropic(error, request_id)).encode()


def headers(error: EdgeserveError, path: str) -> dict[str, str]:
    """Return the header fields that go with it."""
    if not path.startswith(ANTHROPIC):
        return error.headers()
    return {**error.headers(), **EdgeserveError.headers(error)}


def anthropic(error: EdgeserveError, request_id: str = "") -> dict[str, Any]:
    """Return the error as Anthropic's API has it, whole or as an event of a stream."""
    kind = "invalid_request_error" if error.status < 500 else "api_error"
    kind = _KINDS.get(error.status, kind)
    said = {"type": kind, "message": str(error), "code": error.code}
    return {"type": "error", "error": said, "request_id": request_id or None}


def path_in(data: bytes) -> str:
    """Return the path in the first line of a request that cannot be read."""
    line = data[:4096].lstrip(b"\r\n").split(b"\n", 1)[0].split(b" ")
    target = line[1] if len(line) > 1 else b""
    return target.partition(b"?")[0].decode("latin-1")
