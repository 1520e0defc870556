"""OpenAI chunks: what chat and completion streams have in common. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from balancer.dialects.base import Transcript
from balancer.dialects.usage import TokenCount
from edgeserve.http.sse import DONE, write_event

_NAMES = ("id", "created", "model", "system_fingerprint")
BUDGETS = ("n_predict", "max_completion_tokens", "max_tokens")
"""In the order in which llama-server looks for them; the first that is there counts."""

DONE_EVENT = write_event(DONE)
END_MARKS = (b"\ndata: " + DONE,)


def each(request: Mapping[str, Any]) -> int:
    """Return how many answers a request wants for each of its prompts."""
    count = request.get("n_cmpl") or request.get("n")
    return count if isinstance(count, int) and count > 1 else 1


def names(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that must not change within one answer."""
    return {name: event[name] for name in _NAMES if name in event}


def choice(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first choice, {} where there is none."""
    choices = event.get("choices")
    first: Any = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def prompt_tokens(event: Mapping[str, Any]) -> int | None:
    """Return the length of the prompt, where this event tells."""
    progress, usage = event.get("prompt_progress"), event.get("usage")
    if isinstance(progress, dict):
        return whole(progress.get("total"))
    if isinstance(usage, dict):
        return whole(usage.get("prompt_tokens"))
    return None


def predicted(event: Mapping[str, Any]) -> int | None:
    """Return the tokens generated so far, where this event tells."""
    timings, usage = event.get("timings"), event.get("usage")
    if isinstance(timings, dict):
        return whole(timings.get("predicted_n"))
    if isinstance(usage, dict):
        return whole(usage.get("completion_tokens"))
    return None


def whole(value: object) -> int | None:
    """Return a JSON number of tokens, None for anything else."""
    return value if isinstance(value, int) and value >= 0 else None


def adapt(event: dict[str, Any], said: Transcript, tally: TokenCount) -> None:
    """Give an event the names of the answer, and the counts of the whole of it."""
    for name in _NAMES:
        if name in event and name in said.head:
            event[name] = said.head[name]
    if isinstance(event.get("usage"), dict):
        event["usage"] = tally.usage(event["usage"])
    if isinstance(event.get("timings"), dict):
        event["timings"] = tally.timings(event["timings"])


def usage_event(said: Transcript, tally: TokenCount, shape: str) -> bytes:
    """Write the chunk that carries nothing but the usage, if the prompt is known."""
    if tally.prompt is None:
        return b""
    return write_event(
        {"choices": [], **said.head, "object": shape, "usage": tally.usage({})}
    )
