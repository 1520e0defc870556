"""Responses dialect: `/v1/responses`, aggregated and resumed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from balancer.dialects.base import (
    Aggregate,
    CannotResume,
    Dialect,
    Incomplete,
    Json,
    ParsedEvent,
    Transcript,
    data_of,
    encoded,
)
from balancer.dialects.chunks import predicted, prompt_tokens, whole
from balancer.dialects.usage import TokenCount
from edgeserve.errors import EdgeserveError
from edgeserve.http.sse import Event, write_event

_OPENINGS = (
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
)
_COMPLETED = "response.completed"


_STATELESS = "answers are not kept: send the whole conversation as `input`"


class Responses(Dialect):
    """OpenAI's responses format."""

    keeps_progress_event = True
    templated = True
    end_marks = (
        b"\nevent: response.completed",
        b"\nevent: response.incomplete",
        b"\nevent: response.failed",
    )
    end_hint = b"event: response."
    quiet = frozenset(("response.created", "response.in_progress"))
    any_tool = "required"
    output_format = "text"
    unsupported: ClassVar[Mapping[str, str]] = {
        "previous_response_id": _STATELESS,
        "conversation": _STATELESS,
        "background": "stream the answer, or wait for it",
    }
    budgets = ("n_predict", "max_completion_tokens", "max_output_tokens", "max_tokens")

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request

    @classmethod
    def aggregate(cls) -> Aggregate:
        """See `Dialect.aggregate`."""
        return ResponsesAggregate()

    @classmethod
    def error_event(cls, error: EdgeserveError, request_id: str = "") -> bytes:
        """See `Dialect.error_event`; `error` inside makes OpenAI's client raise."""
        del request_id
        envelope = error.envelope()
        return write_event({**envelope, "type": "error", "error": envelope}, "error")

    def parse(self, event: dict[str, Any]) -> ParsedEvent:
        """Read one event by its type."""
        match event:
            case {"type": "response.output_text.delta", "delta": str(text)}:
                return ParsedEvent(text=text, step=True, tokens=predicted(event))
            case {"type": "response.reasoning_text.delta", "delta": str(text)}:
                return ParsedEvent(reasoning=text, step=True, tokens=predicted(event))
            case {"type": "response.completed", "response": {"usage": dict(usage)}}:
                tokens, prompt = usage.get("output_tokens"), usage.get("input_tokens")
                return ParsedEvent(
                    tokens=whole(tokens), prompt=whole(prompt), last=True
                )
            case {"item": {"type": "function_call"}}:
                return ParsedEvent(tool=True, last=_is_done(event))
            case {"type": str(kind)} if kind in _OPENINGS:
                return ParsedEvent(
                    opening=kind + _kind(event),
                    prompt=prompt_tokens(event),
                    progress="prompt_progress" in event,
                    head=_names(event),
                )
            case _:
                return ParsedEvent(last=_is_done(event))

    def is_last(self, event: dict[str, Any]) -> bool:
        """See `Dialect.is_last`."""
        return event.get("type") == _COMPLETED

    def continued(self, transcript: Transcript) -> dict[str, Any]:
        """Add the text as an output message; the engine continues it."""
        items = self._request.get("input")
        if isinstance(items, str):
            items = [{"role": "user", "content": items}]
        if not isinstance(items, list) or not items:
            raise CannotResume("the request has no input")
        if transcript.reasoning:
            raise CannotResume("it had reasoned before")
        last: Any = items[-1]
        if not isinstance(last, dict) or not _precedes_answer(last):
            raise CannotResume("the request ends in words of the assistant")
        return {**self._request, "input": [*items, _message(transcript.text)]}

    def adapt(
        self, event: dict[str, Any], transcript: Transcript, count: TokenCount
    ) -> None:
        """Set the names of the response and its message, and the counts."""
        message = transcript.head.get("message")
        if message and "item_id" in event and "output_text" in _about(event):
            event["item_id"] = message
        response: Any = event.get("response")
        items: list[Any] = [event.get("item")]
        if isinstance(response, dict):
            response["id"] = transcript.head.get("response", response.get("id"))
            items += response.get("output") or []
            if isinstance(response.get("usage"), dict):
                response["usage"] = _usage(response["usage"], count)
        for item in items:
            if message and isinstance(item, dict) and item.get("type") == "message":
                item["id"] = message
        if isinstance(event.get("timings"), dict):
            event["timings"] = count.timings(event["timings"])

    def end_events(self, transcript: Transcript, count: TokenCount) -> bytes:
        """Write the final message and the completed response."""
        part = {"type": "output_text", "annotations": [], "logprobs": []}
        part["text"] = transcript.text
        name = transcript.head.get("message", "")
        item = {**_message(transcript.text), "status": "completed", "id": name}
        item["content"] = [part]
        response = {
            "id": transcript.head.get("response", ""),
            "object": "response",
            "status": "completed",
            "output": [item],
            "usage": _usage({}, count),
        }
        return b"".join(
            write_event({"type": kind, **rest}, kind)
            for kind, rest in (
                (
                    "response.output_text.done",
                    {"item_id": name, "text": transcript.text},
                ),
                ("response.content_part.done", {"item_id": name, "part": part}),
                ("response.output_item.done", {"item": item}),
                (_COMPLETED, {"response": response}),
            )
        )

    def closing_events(self, transcript: Transcript) -> bytes:
        """Raise CannotResume: the last events repeat the whole answer."""
        del transcript
        raise CannotResume("it broke off among its last events")


def _message(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text}]
    return {"type": "message", "role": "assistant", "content": content}


def _precedes_answer(item: dict[str, Any]) -> bool:
    own = item.get("type") in ("function_call", "reasoning")
    return item.get("role") != "assistant" and not own


def _names(event: dict[str, Any]) -> dict[str, Any]:
    match event:
        case {"response": {"id": str(name)}}:
            return {"response": name}
        case {"item": {"type": "message", "id": str(name)}}:
            return {"message": name}
        case _:
            return {}


def _kind(event: dict[str, Any]) -> str:
    item: Any = event.get("item")
    return f" {item.get('type')}" if isinstance(item, dict) else ""


def _about(event: dict[str, Any]) -> str:
    """Return the event's type; parts of a message count as its text."""
    kind = str(event.get("type", ""))
    return kind.replace("content_part", "output_text")


def _is_done(event: dict[str, Any]) -> bool:
    return str(event.get("type", "")).endswith(".done")


def _usage(engine: dict[str, Any], count: TokenCount) -> dict[str, Any]:
    prompt = count.prompt or 0
    merged = {
        **engine,
        "input_tokens": prompt,
        "output_tokens": count.total,
        "total_tokens": prompt + count.total,
    }
    match engine:
        case {"input_tokens_details": {"cached_tokens": int(cached)}}:
            merged["input_tokens_details"] = {"cached_tokens": min(cached, prompt)}
        case _:
            pass
    return merged


class ResponsesAggregate:
    """Aggregates a response: `response.completed`, and the keys that streams lack."""

    def __init__(self) -> None:
        self._response: Json | None = None

    def add(self, event: Event) -> None:
        """See `Aggregate.add`."""
        data = data_of(event)
        if data and data.get("type") == "response.completed":
            self._response = data["response"]

    def body(self) -> bytes:
        """See `Aggregate.body`."""
        if self._response is None:
            raise Incomplete
        output: list[Any] = self._response["output"]
        return encoded(
            {
                "completed_at": self._response["created_at"],
                **self._response,
                "output": [{"status": "completed", **item} for item in output],
            }
        )
