"""What an answer with an error status means: whose fault it is, and who tries next.

llama.cpp answers 500 to some requests that are merely wrong (an image for a text model,
a token out of range), so that a 5xx alone proves nothing against a node. Pure.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Judgement = Literal["pass", "elsewhere", "longer", "full"]
"""`pass`: the client's to know; `elsewhere`: another engine may do better; `longer`: if
its context is; `full`: the node has no slot after all."""

ELSEWHERE = frozenset((401, 403, 502, 503))
"""401 and 403 are the node's quarrel with us, not with the client; 502 and 503 say that
an engine is gone, loading or leaving."""


def judge(status: int, body: bytes) -> Judgement:
    """Decide what to do with an error answer."""
    if status == 429:
        return "full"
    if status in ELSEWHERE or (status == 404 and code(body) == "model_not_found"):
        return "elsewhere"
    if status == 400 and error_in(body).get("type") == "exceed_context_size_error":
        return "longer"
    return "pass"


def code(body: bytes) -> str:
    """Return the `code` of an error body, or nothing."""
    return str(error_in(body).get("code", ""))


def message(body: bytes) -> str:
    """Return the sentence of an error body, or its beginning as it stands."""
    said = error_in(body).get("message")
    return str(said) if said else body[:200].decode(errors="replace")


def error_in(body: bytes) -> dict[str, Any]:
    """Return what an error body says, {} where it has no such shape."""
    try:
        error = msgspec.json.decode(body, type=dict[str, Any]).get("error")
    except msgspec.DecodeError:
        return {}
    return error if isinstance(error, dict) else {}
