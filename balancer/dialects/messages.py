"""Messages dialect: Anthropic's `/v1/messages`, with its missing head. Pure.

llama.cpp sends `message_start` with the text of the first token. Where that token is
only a part of a character, as with most emoji, there is no text yet and the event never
comes: Anthropic's clients then fail. The dialect's `head` replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from balancer.dialects.base import (
    Aggregate,
    CannotResume,
    Dialect,
    Headless,
    Incomplete,
    Json,
    ParsedEvent,
    Transcript,
    data_of,
    encoded,
)
from balancer.dialects.chat import assistant_message, extended
from balancer.dialects.chunks import whole
from balancer.dialects.usage import TokenCount
from edgeserve.errors import EdgeserveError
from edgeserve.http.sse import Event, write_event
from edgeserve.openai import anthropic

_TAIL = ("content_block_stop", "message_delta", "message_stop")


_SHAPED = "ask /v1/chat/completions with a `response_format`"


class Messages(Dialect):
    """Anthropic's messages format."""

    reports_progress = False
    templated = True
    end_marks = (b"\nevent: message_stop",)
    end_hint = b"message_stop"
    quiet = frozenset(("message_start", "ping"))
    any_tool: ClassVar[object] = {"type": "any"}
    no_tool: ClassVar[object] = {"type": "none"}
    unsupported: ClassVar[Mapping[str, str]] = {
        "output_format": _SHAPED,
        "output_config": _SHAPED,
    }
    budgets = ("max_tokens",)

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request

    @classmethod
    def aggregate(cls) -> Aggregate:
        """See `Dialect.aggregate`."""
        return MessagesAggregate()

    @classmethod
    def error_event(cls, error: EdgeserveError, request_id: str = "") -> bytes:
        """See `Dialect.error_event`."""
        return write_event(anthropic(error, request_id), "error")

    @classmethod
    def head(cls, id_: str, model: str) -> bytes:
        """See `Dialect.head`; no other event has the length of the prompt."""
        message: Json = {
            "id": id_,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        start = {"type": "message_start", "message": message}
        return write_event(start, "message_start")

    def parse(self, event: dict[str, Any]) -> ParsedEvent:
        """Read one event by its type."""
        match event:
            case {"type": "message_start", "message": {"usage": dict(usage)}}:
                parts = ("input_tokens", "cache_read_input_tokens")
                prompt = sum(whole(usage.get(part)) or 0 for part in parts)
                return ParsedEvent(opening="message", prompt=prompt)
            case {"type": "content_block_start", "content_block": dict(block)}:
                kind = str(block.get("type"))
                tool = kind == "tool_use"
                return ParsedEvent(opening=None if tool else kind, tool=tool)
            case {"type": "content_block_delta", "delta": dict(delta)}:
                return _parsed_delta(delta)
            case {"type": "message_delta", "usage": dict(usage)}:
                tokens = whole(usage.get("output_tokens"))
                return ParsedEvent(opening="end", tokens=tokens, last=True)
            case _:
                return ParsedEvent(last=event.get("type") in _TAIL)

    def is_last(self, event: dict[str, Any]) -> bool:
        """See `Dialect.is_last`."""
        return event.get("type") == "message_stop"

    def continued(self, transcript: Transcript) -> dict[str, Any]:
        """Extend the trailing assistant message, or add one."""
        messages = self._request.get("messages")
        if not isinstance(messages, list) or not messages:
            raise CannotResume("the request has no messages")
        if self._request.get("tools"):
            # llama-server numbers the block of a tool without the text before it.
            raise CannotResume(
                "it may call a tool, whose block another engine would misnumber"
            )
        if transcript.reasoning:
            raise CannotResume("it had reasoned before")
        last: Any = messages[-1]
        if isinstance(last, dict) and last.get("role") == "assistant":
            messages, last = messages[:-1], extended(last, transcript)
        else:
            last = assistant_message(transcript)
        return {**self._request, "messages": [*messages, last]}

    def adapt(
        self, event: dict[str, Any], transcript: Transcript, count: TokenCount
    ) -> None:
        """Set the counts; there is one block, and it keeps its number."""
        del transcript
        if isinstance(event.get("usage"), dict):
            event["usage"] = {**event["usage"], "output_tokens": count.total}

    def end_events(self, transcript: Transcript, count: TokenCount) -> bytes:
        """Write the end of the block, the stop reason and the count, and the stop."""
        del transcript
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        block = {"type": "content_block_stop", "index": 0}
        usage = {"output_tokens": count.total}
        end = {"type": "message_delta", "delta": delta, "usage": usage}
        return (
            write_event(block, "content_block_stop")
            + write_event(end, "message_delta")
            + self._stop()
        )

    def closing_events(self, transcript: Transcript) -> bytes:
        """Write the last event, if the stop reason was sent."""
        if "end" not in transcript.openings:
            raise CannotResume("it broke off among its last events")
        return self._stop()

    def _stop(self) -> bytes:
        return write_event({"type": "message_stop"}, "message_stop")


def _parsed_delta(delta: dict[str, Any]) -> ParsedEvent:
    text, thought = delta.get("text") or "", delta.get("thinking") or ""
    return ParsedEvent(
        text=text,
        reasoning=thought,
        tool="partial_json" in delta,
        step=bool(text or thought),
        last="signature" in delta,
    )


class MessagesAggregate:
    """Aggregates a message: two halves, and blocks of a start and deltas."""

    def __init__(self) -> None:
        self._message: Json | None = None
        self._blocks: dict[int, Json] = {}
        self._arguments: dict[int, list[str]] = {}
        self._done = False

    def add(self, event: Event) -> None:
        """See `Aggregate.add`."""
        data = data_of(event)
        match data and data.get("type"):
            case "message_start":
                self._message = _part(data, "message")
            case "content_block_start":
                self._blocks[_index(data)] = _part(data, "content_block")
            case "content_block_delta":
                self._add_delta(_index(data), _part(data, "delta"))
            case "message_delta":
                self._close(_part(data, "delta"), _part(data, "usage"))
            case "message_stop":
                self._done = True
            case _:
                pass

    def _add_delta(self, index: int, delta: Json) -> None:
        block = self._blocks[index]
        match delta["type"]:
            case "text_delta":
                block["text"] += delta["text"]
            case "thinking_delta":
                block["thinking"] += delta["thinking"]
            case "signature_delta":
                block["signature"] = block.get("signature", "") + delta["signature"]
            case "input_json_delta":
                self._arguments.setdefault(index, []).append(delta["partial_json"])
            case _:
                pass

    def _close(self, delta: Json, usage: Json) -> None:
        if self._message is not None:
            counted = {**self._message["usage"], **usage}
            self._message = {**self._message, **delta, "usage": counted}

    def body(self) -> bytes:
        """See `Aggregate.body`."""
        if not self._done:
            raise Incomplete
        if self._message is None:
            raise Headless
        content = [self._block(index) for index in sorted(self._blocks)]
        return encoded({**self._message, "content": content})

    def _block(self, index: int) -> Json:
        block = self._blocks[index]
        if block["type"] != "tool_use":
            return block
        return {**block, "input": _parsed("".join(self._arguments.get(index, ())))}


def _parsed(arguments: str) -> Any:
    """Parse a tool's arguments; {} where they are not JSON, as in llama.cpp."""
    try:
        return msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return {}


def _part(data: Json | None, key: str) -> Json:
    part: Json = (data or {})[key]
    return part


def _index(data: Json | None) -> int:
    index: int = (data or {})["index"]
    return index
