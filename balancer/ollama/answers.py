"""Ollama answers: what an engine wrote, as lines or bodies of Ollama's. Pure.

A line has the text of one event. The calls of tools come whole in one line before the
last, which has the reason for the end, the counts, and durations in nanoseconds.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from balancer.dialects import chunks
from balancer.dialects.base import decoded, is_error
from balancer.ollama.requests import EngineRequest
from edgeserve.http.sse import DONE, Event, EventReader
from edgeserve.openai import message

Json = dict[str, Any]

_MS = 1_000_000
"""Nanoseconds of a millisecond, the unit of llama.cpp."""

_S = 1_000_000_000


class Moment(msgspec.Struct, frozen=True):
    """A time of an answer: in Unix seconds, and in seconds since the request came."""

    unix: float
    since: float

    @property
    def written(self) -> str:
        """The time as Ollama writes it."""
        shown = datetime.fromtimestamp(self.unix, UTC)
        return shown.isoformat(timespec="microseconds").replace("+00:00", "Z")


class OllamaAnswer(ABC):
    """Turns what would be sent to a client of OpenAI's API into Ollama's."""

    media = "application/json"

    def __init__(self, asked: EngineRequest) -> None:
        self.asked = asked

    def feed(self, data: bytes, now: Moment) -> bytes:
        """Return the lines for a piece of a stream."""
        del data, now
        return b""

    def end(self, now: Moment) -> bytes:
        """Return the last line of a stream."""
        del now
        return b""

    @abstractmethod
    def whole(self, body: bytes, now: Moment) -> bytes:
        """Return the body for an answer that came whole."""


class WrittenAnswer(OllamaAnswer):
    """What a model has written, for /api/chat and /api/generate."""

    media = "application/x-ndjson"

    def __init__(self, asked: EngineRequest) -> None:
        super().__init__(asked)
        self._reader = EventReader()
        self._calls: dict[int, Json] = {}
        self._reason: str | None = None
        self._counts = _Counts()
        self._failed = False

    def feed(self, data: bytes, now: Moment) -> bytes:
        """See `OllamaAnswer.feed`. A comment becomes a line without text."""
        return b"".join(
            line for each in self._reader.feed(data) for line in self._lines(each, now)
        )

    def _lines(self, event: Event, now: Moment) -> Iterator[bytes]:
        if event.comment:
            yield self._line({}, now)
            return
        if event.data == DONE or not event.data.startswith(b"{"):
            return
        try:
            data = decoded(event.data)
        except ValueError:
            data = {"error": {"message": "the engine sent no JSON"}}
        if is_error(data):
            self._failed = True
            yield error_body(msgspec.json.encode(data)) + b"\n"
            return
        self._counts.add(data, now)
        choice, delta = _told(data, "delta")
        self._collect(delta.get("tool_calls") or ())
        said = _said(delta) | _logprobs(choice)
        if said:
            yield self._line(said, now)
        self._reason = choice.get("finish_reason") or _native_end(data) or self._reason

    def _collect(self, parts: Any) -> None:
        for part in parts:
            function = part.get("function") or {}
            empty = {"id": "", "name": "", "arguments": ""}
            call = self._calls.setdefault(part.get("index", 0), empty)
            call["id"] = part.get("id") or call["id"]
            call["name"] = function.get("name") or call["name"]
            call["arguments"] += function.get("arguments") or ""

    def end(self, now: Moment) -> bytes:
        """See `OllamaAnswer.end`."""
        if self._failed:
            return b""
        calls = [_call(n, **self._calls[n]) for n in sorted(self._calls)]
        lines = self._line({"tool_calls": calls}, now) if calls else b""
        return lines + self._line({}, now, done=self._reason or "stop")

    def whole(self, body: bytes, now: Moment) -> bytes:
        """See `OllamaAnswer.whole`."""
        data = decoded(body)
        self._counts.add(data, now)
        choice, told = _told(data, "message")
        said = _said(told) | _logprobs(choice)
        calls = told.get("tool_calls") or ()
        if calls:
            said["tool_calls"] = [
                _call(n, id=each.get("id", ""), **each["function"])
                for n, each in enumerate(calls)
            ]
        reason = choice.get("finish_reason") or _native_end(data) or "stop"
        return self._line(said, now, done=reason)

    def _line(self, said: Json, now: Moment, done: str = "") -> bytes:
        line: Json = {"model": self.asked.model, "created_at": now.written}
        rest = {name: said.pop(name) for name in ("logprobs",) if name in said}
        if self.asked.shape == "chat":
            line["message"] = {"role": "assistant", "content": "", **said}
        else:
            line["response"] = said.pop("content", "")
            line |= said
        line |= rest
        line["done"] = bool(done)
        if done:
            line["done_reason"] = "length" if done == "length" else "stop"
            line |= self._counts.shown(now)
        return msgspec.json.encode(line) + b"\n"


class _Counts:
    """The counts and durations of one answer."""

    def __init__(self) -> None:
        self._usage: Mapping[str, Any] = {}
        self._timings: Mapping[str, Any] = {}
        self._native: Mapping[str, Any] = {}
        self._first: float | None = None

    def add(self, data: Json, now: Moment) -> None:
        self._first = now.since if self._first is None else self._first
        if isinstance(usage := data.get("usage"), dict):
            self._usage = usage
        if isinstance(timings := data.get("timings"), dict):
            self._timings = timings
        if "tokens_predicted" in data:
            self._native = data

    def shown(self, now: Moment) -> Json:
        """Return them; what no engine told is measured here."""
        timings = self._timings
        prompt = self._usage.get("prompt_tokens", self._native.get("tokens_evaluated"))
        written = self._usage.get(
            "completion_tokens", self._native.get("tokens_predicted")
        )
        total, first = int(now.since * _S), int((self._first or 0.0) * _S)
        if "predicted_ms" in timings:
            reading = int(timings.get("prompt_ms", 0.0) * _MS)
            writing = int(timings["predicted_ms"] * _MS)
            cached = timings.get("cache_n", 0) + timings.get("prompt_n", 0)
            prompt = cached if prompt is None else prompt
            written = timings.get("predicted_n", 0) if written is None else written
        else:
            reading, writing = first, total - first
        return {
            "total_duration": total,
            "load_duration": max(0, total - reading - writing),
            "prompt_eval_count": prompt or 0,
            "prompt_eval_duration": reading,
            "eval_count": written or 0,
            "eval_duration": writing,
        }


def _told(data: Json, field: str) -> tuple[Json, Json]:
    """Return the answer in an event or a body, and what it says, in any dialect."""
    choice = chunks.choice(data)
    told = choice.get(field)
    if isinstance(told, dict):
        return choice, told
    return choice, {"content": choice.get("text", data.get("content"))}


def _said(delta: Mapping[str, Any]) -> Json:
    """Return the text and the thoughts of a message or a part of it."""
    found: Json = {}
    if content := delta.get("content"):
        found["content"] = content
    thought = delta.get("reasoning_content") or delta.get("reasoning")
    if thought:
        found["thinking"] = thought
    return found


def _logprobs(choice: Mapping[str, Any]) -> Json:
    match choice.get("logprobs"):
        case {"content": [*found]} if found:
            return {"logprobs": found}
        case _:
            return {}


def _native_end(data: Json) -> str:
    """Return why llama.cpp's own format ends here, an empty string if it does not."""
    if data.get("stop") is not True:
        return ""
    return "length" if data.get("stop_type") == "limit" else "stop"


def _call(number: int, *, name: str, arguments: str, id: str = "") -> Json:  # noqa: A002 - its name in the API
    """Return a call of a tool, its arguments an object."""
    try:
        given = msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        given = {}  # the answer was cut off within them
    function = {"index": number, "name": name, "arguments": given}
    return {"id": id, "function": function} if id else {"function": function}


class EmbeddedAnswer(OllamaAnswer):
    """Embeddings, for /api/embed and the older /api/embeddings."""

    def whole(self, body: bytes, now: Moment) -> bytes:
        """See `OllamaAnswer.whole`."""
        data = decoded(body)
        rows = sorted(data["data"], key=lambda each: each.get("index", 0))
        found = [_shortened(each["embedding"], self.asked.dimensions) for each in rows]
        if self.asked.shape == "embeddings":
            return msgspec.json.encode({"embedding": found[0]})
        usage: Any = data.get("usage") or {}
        return msgspec.json.encode(
            {
                "model": self.asked.model,
                "embeddings": found,
                "total_duration": int(now.since * _S),
                "load_duration": 0,
                "prompt_eval_count": usage.get("prompt_tokens", 0),
            }
        )


def _shortened(vector: list[float], dimensions: int | None) -> list[float]:
    """Return the first dimensions, of length 1 again."""
    if dimensions is None or dimensions >= len(vector):
        return vector
    part = vector[:dimensions]
    length = math.hypot(*part) or 1.0
    return [each / length for each in part]


class IdleAnswer(OllamaAnswer):
    """The answer to a request that only loads or unloads a model."""

    def whole(self, body: bytes, now: Moment) -> bytes:
        """See `OllamaAnswer.whole`."""
        del body
        model, shape = self.asked.model, self.asked.shape
        if shape == "embed":
            return msgspec.json.encode({"model": model, "embeddings": []})
        if shape == "embeddings":
            return msgspec.json.encode({"embedding": []})
        line: Json = {"model": model, "created_at": now.written}
        if shape == "chat":
            line["message"] = {"role": "assistant", "content": ""}
        else:
            line["response"] = ""
        reason = "load" if self.asked.loads else "unload"
        return msgspec.json.encode({**line, "done": True, "done_reason": reason})


def answer_to(asked: EngineRequest) -> OllamaAnswer:
    """Return what writes the answer to a request."""
    if asked.loads or not asked.path:
        return IdleAnswer(asked)
    if asked.shape in {"embed", "embeddings"}:
        return EmbeddedAnswer(asked)
    return WrittenAnswer(asked)


def error_body(body: bytes) -> bytes:
    """Return an error of OpenAI's shape as one of Ollama's."""
    return msgspec.json.encode({"error": message(body)})
