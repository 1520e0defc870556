"""Ollama messages: a conversation in Ollama's form, in that of OpenAI's chat. Pure.

Ollama has arguments of tools as objects, calls without ids, results that name the tool,
and images as base64 beside the text.
"""

from __future__ import annotations

from typing import Any

import msgspec

from edgeserve.errors import BadRequest

Json = dict[str, Any]

IMAGES = (
    ("iVBORw0KGgo", "png"),
    ("/9j/", "jpeg"),
    ("R0lGOD", "gif"),
    ("UklGR", "webp"),
    ("Qk", "bmp"),
)
"""How each kind of image begins in base64."""


class OllamaMessage(msgspec.Struct, kw_only=True):
    """One message of a client."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[Json] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


def openai_messages(messages: list[OllamaMessage]) -> list[Json]:
    """Return the messages as OpenAI's chat has them. Raises BadRequest."""
    calls = _Calls()
    return [_translated(each, calls) for each in messages]


def user_content(text: str, images: list[str] | None) -> str | list[Json]:
    """Return text alone, or text and images as parts."""
    if not images:
        return text
    parts: list[Json] = [{"type": "text", "text": text}] if text else []
    urls = map(data_url, images)
    return [*parts, *({"type": "image_url", "image_url": {"url": u}} for u in urls)]


def data_url(image: str) -> str:
    """Return an image as a data URL, with its kind by its first bytes."""
    if image.startswith("data:"):
        return image
    if "://" in image[:12]:
        raise BadRequest("`images` takes base64, not URLs")
    kind = next((name for start, name in IMAGES if image.startswith(start)), "jpeg")
    return f"data:image/{kind};base64,{image}"


class _Calls:
    """Gives each call of a tool an id, by which its result is known."""

    def __init__(self) -> None:
        self._count = 0
        self._open: list[tuple[str, str]] = []

    def made(self, call: Json) -> Json:
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRequest("each of `tool_calls` needs a `function` with a `name`")
        self._count += 1
        id_ = str(call.get("id") or f"call_{self._count}")
        self._open.append((function["name"], id_))
        arguments = function.get("arguments") or {}
        if not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments).decode()
        named = {"name": function["name"], "arguments": arguments}
        return {"id": id_, "type": "function", "function": named}

    def answered(self, message: OllamaMessage) -> str:
        """Return the id of the call that a result is for: the first that fits."""
        if message.tool_call_id:
            return message.tool_call_id
        fitting = [
            each for each in self._open if message.tool_name in {None, "", each[0]}
        ]
        if not fitting:
            return "call_0"
        self._open.remove(fitting[0])
        return fitting[0][1]


def _translated(message: OllamaMessage, calls: _Calls) -> Json:
    content = user_content(message.content or "", message.images)
    found: Json = {"role": message.role, "content": content}
    if message.thinking:
        found["reasoning_content"] = message.thinking
    if message.tool_calls:
        found["tool_calls"] = [calls.made(each) for each in message.tool_calls]
    if message.role == "tool":
        found["tool_call_id"] = calls.answered(message)
        if message.tool_name:
            found["name"] = message.tool_name
    return found
