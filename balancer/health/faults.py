"""Faults: whose fault a failure is, and whether another engine should try. Pure.

llama.cpp answers 500 to many requests that are merely wrong: an image for a text model,
a token out of range, a grammar and a schema at once. Only the errors of its decode loop
are certainly its own. Of any other 500 the engine is under doubt, until a probe.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edgeserve.openai import code, error_in

Fault = Literal["none", "doubt", "engine", "node"]
"""`none`: the request's own fault, or no fault, as with a full or loading engine."""

_DECODE_LOOP = (
    "Compute error",
    "Invalid input batch",
    "got exception",
    "failed to process mtmd chunk",
    "unknown error",
)
_REQUESTS_OWN = (
    "image input is not supported",
    "audio input is not supported",
    "video input is not supported",
    "vector::_M_range_check",  # /detokenize with an id past the vocabulary
    "Context size has been exceeded",  # a shared context that many filled together
    "is too large to process",
)
_NODE = frozenset((401, 403))
"""The node's quarrel with us. The client did nothing."""

_ENGINE = frozenset((502, 504))
"""The node says that its engine is gone, or silent."""


def fault_of_status(status: int, body: bytes) -> Fault:
    """Blame for an answer with this status, or an error event with this code."""
    if status in _NODE:
        return "node"
    if status in _ENGINE:
        return "engine"
    return _of_message(body) if status == 500 else "none"


def fault_of_loss(*, connected: bool) -> Fault:
    """Blame for a connection that was not made, or that was lost on the way."""
    return "engine" if connected else "node"


def _of_message(body: bytes) -> Fault:
    said = _message(body)
    if said is None or said.startswith(_DECODE_LOOP):
        return "engine"
    return "none" if any(own in said for own in _REQUESTS_OWN) else "doubt"


def _message(body: bytes) -> str | None:
    """Return llama.cpp's sentence, None where its error has not its shape."""
    try:
        error = msgspec.json.decode(body, type=dict[str, dict[str, object]])["error"]
    except (msgspec.DecodeError, KeyError):
        return None
    return str(error.get("message", ""))


Judgement = Literal["pass", "elsewhere", "longer", "full"]
"""`pass`: the client's to know; `elsewhere`: another engine may do better; `longer`: if
its context is; `full`: the node has no slot after all."""

ELSEWHERE = frozenset((401, 403, 502, 503))
"""401 and 403 are the node's quarrel with us, not with the client; 502 and 503 say that
an engine is gone, loading or leaving."""


def next_step(status: int, body: bytes) -> Judgement:
    """Decide what to do with an error answer."""
    if status == 429:
        return "full"
    if status in ELSEWHERE or (status == 404 and code(body) == "model_not_found"):
        return "elsewhere"
    if status == 400 and error_in(body).get("type") == "exceed_context_size_error":
        return "longer"
    return "pass"
