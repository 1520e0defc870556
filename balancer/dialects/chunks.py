"""OpenAI chunks: the parts that chat and completion streams share. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from balancer.dialects.base import Transcript
from balancer.dialects.usage import TokenCount
from edgeserve.http.sse import DONE, write_event

_NAMES = ("id", "created", "model", "system_fingerprint")
BUDGETS = ("n_predict", "max_completion_tokens", "max_tokens")
"""In the order in which llama-server looks for them; the first one present counts."""

DONE_EVENT = write_event(DONE)
END_MARKS = (b"\ndata: " + DONE,)


def each(request: Mapping[str, Any]) -> int:
    """Return how many answers a request wants for each of its prompts."""
    number = request.get("n_cmpl") or request.get("n")
    return number if isinstance(number, int) and number > 1 else 1


def wants_usage(request: Mapping[str, Any]) -> bool:
    """Whether a request asks for the usage in a stream."""
    options = request.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


def names(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that must not change within one answer."""
    return {name: event[name] for name in _NAMES if name in event}


def choice(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first choice, {} where there is none."""
    choices = event.get("choices")
    first: Any = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def prompt_tokens(event: Mapping[str, Any]) -> int | None:
    """Return the length of the prompt, None where this event lacks it."""
    progress, usage = event.get("prompt_progress"), event.get("usage")
    if isinstance(progress, dict):
        return whole(progress.get("total"))
    if isinstance(usage, dict):
        return whole(usage.get("prompt_tokens"))
    return None


def predicted(event: Mapping[str, Any]) -> int | None:
    """Return the tokens generated so far, None where this event lacks them."""
    timings, usage = event.get("timings"), event.get("usage")
    if isinstance(timings, dict):
        return whole(timings.get("predicted_n"))
    if isinstance(usage, dict):
        return whole(usage.get("completion_tokens"))
    return None


def whole(value: object) -> int | None:
    """Return a JSON number of tokens, None for anything else."""
    return value if isinstance(value, int) and value >= 0 else None


def adapt(event: dict[str, Any], transcript: Transcript, count: TokenCount) -> None:
    """Give an event the names of the answer, and the counts of the whole answer."""
    for name in _NAMES:
        if name in event and name in transcript.head:
            event[name] = transcript.head[name]
    if isinstance(event.get("usage"), dict):
        event["usage"] = count.usage(event["usage"])
    if isinstance(event.get("timings"), dict):
        event["timings"] = count.timings(event["timings"])


def usage_event(transcript: Transcript, count: TokenCount, shape: str) -> bytes:
    """Write the chunk with the usage alone, if the length of the prompt is known."""
    if count.prompt is None:
        return b""
    return write_event(
        {"choices": [], **transcript.head, "object": shape, "usage": count.usage({})}
    )


def set_text(event: Mapping[str, Any], text: str) -> None:
    """Replace the text of a chunk."""
    first = choice(event)
    delta = first.get("delta")
    if isinstance(delta, dict):
        delta["content"] = text
    else:
        first["text"] = text
