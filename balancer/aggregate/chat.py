"""/v1/chat/completions: deltas to messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from balancer.aggregate.answer import Incomplete, Json, data_of, encoded
from balancer.sse import Event


@dataclass
class _Choice:
    """One of `n` answers."""

    content: list[str] = field(default_factory=list[str])
    reasoning: list[str] = field(default_factory=list[str])
    calls: dict[int, _Call] = field(default_factory=dict[int, "_Call"])
    finish: str | None = None

    def add(self, delta: Json) -> None:
        self.content.append(delta.get("content") or "")
        self.reasoning.append(delta.get("reasoning_content") or "")
        for part in delta.get("tool_calls") or ():
            self.calls.setdefault(part["index"], _Call()).add(part)

    def message(self) -> Json:
        said: Json = {"role": "assistant", "content": "".join(self.content)}
        if reasoning := "".join(self.reasoning):
            said["reasoning_content"] = reasoning
        if self.calls:
            said["tool_calls"] = [self.calls[n].whole() for n in sorted(self.calls)]
        return said


@dataclass
class _Call:
    """One tool call; its arguments come in pieces."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list[str])

    def add(self, part: Json) -> None:
        function: Json = part.get("function") or {}
        self.id = part.get("id") or self.id
        self.name = function.get("name") or self.name
        self.arguments.append(function.get("arguments") or "")

    def whole(self) -> Json:
        function = {"name": self.name, "arguments": "".join(self.arguments)}
        call: Json = {"type": "function", "function": function}
        return call | ({"id": self.id} if self.id else {})


class Chat:
    """Usage and timings are those of the first choice, as llama.cpp has it."""

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._head: Json = {}
        self._counted: dict[int, Json] = {}
        self._last = 0
        self._done = False

    def add(self, event: Event) -> None:
        """See `Aggregate.add`."""
        self._done = self._done or event.data == b"[DONE]"
        if (data := data_of(event)) is None:
            return
        self._head = self._head or data
        for each in data["choices"]:
            self._add_choice(each)
        # A chunk with usage has no choice in it: it belongs to the one before.
        for key in ("usage", "timings"):
            if key in data:
                self._counted.setdefault(self._last, {})[key] = data[key]

    def _add_choice(self, each: Json) -> None:
        self._last = each["index"]
        choice = self._choices.setdefault(self._last, _Choice())
        choice.add(each["delta"])
        choice.finish = each["finish_reason"] or choice.finish

    def body(self) -> bytes:
        """See `Aggregate.body`."""
        indices = sorted(self._choices)
        if not self._done or not indices:
            raise Incomplete
        counted = self._counted.get(indices[0], {})
        return encoded(
            {
                "choices": _choices(indices, self._choices),
                "created": self._head["created"],
                "model": self._head["model"],
                "system_fingerprint": self._head["system_fingerprint"],
                "object": "chat.completion",
                "usage": counted.get("usage"),
                "id": self._head["id"],
            }
            | ({"timings": counted["timings"]} if "timings" in counted else {})
        )


def _choices(indices: Sequence[int], choices: dict[int, _Choice]) -> list[Json]:
    return [
        {
            "finish_reason": choices[n].finish,
            "index": n,
            "message": choices[n].message(),
        }
        for n in indices
    ]
