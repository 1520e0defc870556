"""Reading streamed answers in tests."""

from __future__ import annotations

import json
from typing import Any


def events(body: bytes) -> list[Any]:
    """Decode the events of a stream, without comments."""
    lines = [each for each in body.decode().split("\n\n") if each.startswith("data: ")]
    datas = [each.removeprefix("data: ") for each in lines]
    return [each if each == "[DONE]" else json.loads(each) for each in datas]


def text(body: bytes) -> str:
    """Join the content of a streamed chat."""
    return "".join(
        choice["delta"].get("content") or ""
        for event in events(body)
        if event != "[DONE]"
        for choice in event.get("choices", ())
    )
