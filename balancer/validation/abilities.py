"""Required abilities: vision and audio that a request needs of an engine. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from edgeserve.openai import fields
from edgeserve.wire import Ability

NOTHING: frozenset[Ability] = frozenset()

_PARTS: dict[object, Ability] = {
    "image_url": "vision",
    "input_image": "vision",
    "image": "vision",
    "input_audio": "audio",
    "audio_url": "audio",
    "audio": "audio",
}
"""Types of content in OpenAI's, Anthropic's and llama.cpp's formats."""

_HOLDERS = ("messages", "input", "system")
_INNER = ("content", "output")
"""Fields with content: of a message, of a tool's result or output."""


def media(body: bytes, prompt: bytes | msgspec.Raw = b"") -> frozenset[Ability]:
    """Return the media that an engine must accept; most bodies need no parsing.

    `prompt`: the raw field of that name, which may contain more than text.
    """
    if not (b"image" in body or b"audio" in body or _may_carry_data(prompt)):
        return NOTHING
    request = fields(body)
    found: set[Ability] = set()
    for key in _HOLDERS:
        found.update(_within(request.get(key)))
    if _carries_data(request.get("prompt")):
        found.add("vision")
    return frozenset(found)


def _may_carry_data(prompt: bytes | msgspec.Raw) -> bool:
    if not prompt or bytes(memoryview(prompt)[:1]) not in {b"{", b"["}:
        return False
    return b'"multimodal_data"' in bytes(prompt)


def _within(value: Any) -> Iterator[Ability]:
    """Yield the abilities that the parts of a value need, at any depth."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += each
        elif isinstance(each, dict):
            kind = each.get("type")
            if isinstance(kind, str) and kind in _PARTS:
                yield _PARTS[kind]
            waiting += [each.get(key) for key in _INNER]


def _carries_data(prompt: Any) -> bool:
    prompts = prompt if isinstance(prompt, list) else [prompt]
    return any(isinstance(each, dict) and "multimodal_data" in each for each in prompts)
