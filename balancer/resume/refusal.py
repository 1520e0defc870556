"""Requests whose answers no second engine can take up, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeserve.openai import prompts

Body = dict[str, Any]


def why_not(request: Body) -> str | None:
    """Return why an answer to this request cannot be continued, None if it can."""
    for reason, holds in _REASONS.items():
        if holds(request):
            return reason
    return None


def _several(request: Body) -> bool:
    return any((request.get(name) or 1) != 1 for name in ("n", "n_cmpl", "best_of"))


def _prompts(request: Body) -> bool:
    return prompts(request.get("prompt")) > 1


def _probabilities(request: Body) -> bool:
    return any(request.get(name) for name in ("logprobs", "n_probs", "top_logprobs"))


def _constrained(request: Body) -> bool:
    if request.get("grammar") or request.get("json_schema") is not None:
        return True
    text: Any = request.get("text")
    shapes = [request.get("response_format"), request.get("output_format")]
    if isinstance(text, dict):
        shapes.append(text.get("format"))
    return any(_kind(shape) not in (None, "text") for shape in shapes)


def _forced(request: Body) -> bool:
    if not request.get("tools"):
        return False
    choice = request.get("tool_choice")
    kind = _kind(choice) if isinstance(choice, dict) else choice
    return kind not in (None, "auto", "none")


def _kind(shape: object) -> object:
    return shape.get("type") if isinstance(shape, dict) else shape


def _around(request: Body) -> bool:
    return any(
        request.get(name) for name in ("echo", "suffix", "input_suffix", "input_prefix")
    )


def _own_continuation(request: Body) -> bool:
    return request.get("continue_final_message", True) is not True


_REASONS: dict[str, Callable[[Body], bool]] = {
    "it was to give several answers at once": _several,
    "the request has several prompts": _prompts,
    "it was to give the probabilities of its tokens": _probabilities,
    "it was bound to a grammar or JSON schema, and stood somewhere inside": (
        _constrained
    ),
    "it was bound to call a tool": _forced,
    "it was to echo the prompt, or to fill in between two texts": _around,
    "the request chose how to continue its last message": _own_continuation,
}
