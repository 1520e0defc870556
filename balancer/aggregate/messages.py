"""/v1/messages, Anthropic's format: content blocks from their deltas."""

from __future__ import annotations

from typing import Any

import msgspec

from balancer.aggregate.answer import Headless, Incomplete, Json, data_of, encoded
from balancer.sse import Event


class Messages:
    """Blocks come as a start and deltas; the message itself in two halves."""

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
    """Parse a tool's arguments; llama.cpp, too, sends {} for what is no JSON."""
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
