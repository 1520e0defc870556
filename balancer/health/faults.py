"""Failures: whose fault one is, and whether another engine should try. Pure.

llama.cpp answers 500 to many requests that are merely wrong: an image for a text model,
a token out of range, a grammar and a schema at once. Only errors of its decode loop are
certainly its own. After any other 500 a probe decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgeserve.openai import error_in

Fault = Literal["none", "doubt", "engine", "node"]
"""`none`: the request's own fault, or no fault, as with a full or loading engine."""

NextStep = Literal["pass", "elsewhere", "longer", "full"]
"""`pass`: pass the error to the client; `elsewhere`: another engine may do better;
`longer`: one with a longer context may; `full`: the node has no free slot after all."""

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


@dataclass(frozen=True, slots=True)
class Failure:
    """What an error answer means, and what to do about it."""

    fault: Fault
    next_step: NextStep


PASS = Failure("none", "pass")


def failure_of(status: int, body: bytes) -> Failure:
    """Judge an answer with this status, or an error event with this code."""
    match status:
        case 401 | 403:  # the engine refuses the node's key; the client did nothing
            return Failure("node", "elsewhere")
        case 429:
            return Failure("none", "full")
        case 502:  # the engine is gone
            return Failure("engine", "elsewhere")
        case 503 | 508:  # it loads, its node is leaving, or it would ask us in turn
            return Failure("none", "elsewhere")
        case 504:  # the engine is silent
            return Failure("engine", "pass")
        case 400 | 404 | 500:
            return _by_body(status, error_in(body))
        case _:
            return PASS


def _by_body(status: int, error: Mapping[str, object]) -> Failure:
    if status == 500:
        return Failure(fault_of_500(error), "pass")
    if status == 400 and error.get("type") == "exceed_context_size_error":
        return Failure("none", "longer")
    if status == 404 and error.get("code") == "model_not_found":
        return Failure("none", "elsewhere")
    return PASS


def fault_of_500(error: Mapping[str, object]) -> Fault:
    """Say whose fault a 500 is by its error, {} where the body has none."""
    sentence = str(error.get("message", ""))
    if not error or sentence.startswith(_DECODE_LOOP):
        return "engine"
    return "none" if any(own in sentence for own in _REQUESTS_OWN) else "doubt"


def fault_of_loss(*, connected: bool) -> Fault:
    """Say whose fault it is that a connection failed, or broke once connected."""
    return "engine" if connected else "node"
