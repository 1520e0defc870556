"""What the fake says, and in which shapes. Pure: text in, JSON out.

The text is `w0 w1 w2 …`; a trailing assistant message, or a prompt that ends in such
words, is continued where it stops, so that a resumed stream can be checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Dialect = Literal["chat", "completion", "native"]
CREATED = 1_790_000_000


@dataclass(frozen=True)
class Job:
    """One generation: its prompt as tokens, and where the words begin and end."""

    dialect: Dialect
    prompt: tuple[str, ...]
    prefix: str
    first: int
    budget: int
    end: int
    stream: bool
    usage: bool
    progress: bool
    logprob: float | None = None

    @property
    def tokens(self) -> list[str]:
        """The words to come, each with the space before it."""
        last = min(self.first + self.budget, self.end)
        spaced = self.first > 0
        return [
            f" w{n}" if spaced or n > self.first else f"w{n}"
            for n in range(self.first, last)
        ]

    @property
    def finish(self) -> Literal["stop", "length"]:
        """Why it ends: by itself, or by the caller's budget."""
        return "stop" if self.first + self.budget > self.end else "length"


def job(
    dialect: Dialect, body: Mapping[str, Any], length: int, logprob: float = 0.0
) -> Job:
    """Read a request; `length` is how many words an answer has by itself."""
    messages: list[dict[str, Any]] = body.get("messages") or []
    if dialect == "chat":
        prefix, prompt = trailing(messages), templated(messages)
        first = len(prefix.split())
    else:
        text = str(body.get("prompt", ""))
        found = re.search(r"w(\d+)$", text)
        prefix, prompt = "", text.split()
        first = int(found[1]) + 1 if found else 0
    budget = next(
        (
            int(body[key])
            for key in ("max_completion_tokens", "max_tokens", "n_predict")
            if body.get(key) is not None and int(body[key]) >= 0
        ),
        10**6,
    )
    endless = bool(body.get("ignore_eos")) and budget < 10**6
    options: dict[str, Any] = body.get("stream_options") or {}
    return Job(
        dialect=dialect,
        prompt=tuple(prompt) or ("<s>",),
        prefix=prefix,
        first=first,
        budget=budget,
        end=first + budget if endless else max(length, first),
        stream=bool(body.get("stream")),
        usage=bool(options.get("include_usage")),
        progress=bool(body.get("return_progress")),
        logprob=logprob if body.get("logprobs") else None,
    )


def trailing(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the assistant message that is to be continued, or nothing."""
    if messages and messages[-1].get("role") == "assistant":
        return plain(messages[-1].get("content"))
    return ""


def templated(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Render a conversation as tokens: a role, its words, an end."""
    tokens: list[str] = []
    for message in messages:
        words = plain(message.get("content")).split()
        tokens += [f"<{message.get('role')}>", *words, "</>"]
    if trailing(messages):
        return tokens[:-1]
    return [*tokens, "<assistant>"]


def plain(content: Any) -> str:
    """Return the text of a message's content, given as a string or as parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return str(content or "")


@dataclass(frozen=True)
class Timing:
    """What was done, in tokens and seconds."""

    cached: int
    read: int
    read_seconds: float
    written: int
    write_seconds: float

    @property
    def usage(self) -> dict[str, Any]:
        """OpenAI's `usage`."""
        prompt = self.cached + self.read
        return {
            "completion_tokens": self.written,
            "prompt_tokens": prompt,
            "total_tokens": prompt + self.written,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }

    @property
    def timings(self) -> dict[str, Any]:
        """llama.cpp's `timings`."""
        read_ms = max(self.read_seconds * 1000, 0.001)
        write_ms = max(self.write_seconds * 1000, 0.001)
        return {
            "cache_n": self.cached,
            "prompt_n": self.read,
            "prompt_ms": read_ms,
            "prompt_per_token_ms": read_ms / max(self.read, 1),
            "prompt_per_second": self.read / read_ms * 1000,
            "predicted_n": self.written,
            "predicted_ms": write_ms,
            "predicted_per_token_ms": write_ms / max(self.written, 1),
            "predicted_per_second": self.written / write_ms * 1000,
        }


@dataclass(frozen=True)
class AnswerWriter:
    """Writes one answer in its dialect, under one model name and id."""

    job: Job
    model: str
    id: str

    def opening(self, progress: dict[str, Any] | None = None) -> bytes:
        """Return the role chunk (or a native empty one), with progress if asked."""
        more = {"prompt_progress": progress} if progress else {}
        if self.job.dialect == "chat":
            return self._chat({"role": "assistant", "content": None}, None, more)
        return self.token("", more)

    def token(self, text: str, more: Mapping[str, Any] | None = None) -> bytes:
        """Return a chunk that carries text."""
        if self.job.dialect == "chat":
            return self._chat({"content": text}, None, more)
        if self.job.dialect == "completion":
            return self._completion(text, None, more)
        return sse({"index": 0, "content": text, "stop": False, **(more or {})})

    def closing(self, timing: Timing) -> list[bytes]:
        """Return the finish chunk, usage if asked for, and the end mark."""
        if self.job.dialect == "native":
            return [sse(self.whole("", timing))]
        tail: dict[str, Any] = {"timings": timing.timings}
        counted = {"usage": timing.usage, **tail}
        if self.job.dialect == "completion":
            last = [self._completion("", self.job.finish, counted)]
        elif self.job.usage:
            last = [
                self._chat({}, self.job.finish, {}),
                sse(
                    {**self._envelope("chat.completion.chunk"), "choices": []} | counted
                ),
            ]
        else:
            last = [self._chat({}, self.job.finish, tail)]
        return [*last, b"data: [DONE]\n\n"]

    def whole(self, text: str, timing: Timing) -> dict[str, Any]:
        """Return the body of an answer that does not stream."""
        if self.job.dialect == "native":
            return self._native(text, timing)
        counted = {"usage": timing.usage, "timings": timing.timings}
        if self.job.dialect == "chat":
            said = {"role": "assistant", "content": self.job.prefix + text}
            choice: dict[str, Any] = {"message": said, **self._logprobs(text.split())}
            kind = "chat.completion"
        else:
            choice, kind = {"text": text, "logprobs": None}, "text_completion"
        choice = {"finish_reason": self.job.finish, "index": 0, **choice}
        return {"choices": [choice], **self._envelope(kind), **counted}

    def _logprobs(self, tokens: Sequence[str]) -> dict[str, Any]:
        if self.job.logprob is None or not tokens:
            return {}
        entries = [{"token": each, "logprob": self.job.logprob} for each in tokens]
        return {"logprobs": {"content": entries}}

    def _native(self, text: str, timing: Timing) -> dict[str, Any]:
        return {
            "index": 0,
            "content": text,
            "tokens": [],
            "id_slot": 0,
            "stop": True,
            "model": self.model,
            "tokens_predicted": timing.written,
            "tokens_evaluated": timing.cached + timing.read,
            "stop_type": "eos" if self.job.finish == "stop" else "limit",
            "truncated": False,
            "timings": timing.timings,
        }

    def _chat(
        self,
        delta: Mapping[str, Any],
        finish: str | None,
        more: Mapping[str, Any] | None,
    ) -> bytes:
        choice = {"finish_reason": finish, "index": 0, "delta": delta}
        choice |= self._logprobs([delta["content"]] if delta.get("content") else [])
        head = self._envelope("chat.completion.chunk")
        return sse({"choices": [choice], **head, **(more or {})})

    def _completion(
        self, text: str, finish: str | None, more: Mapping[str, Any] | None
    ) -> bytes:
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
        head = self._envelope("text_completion")
        return sse({"choices": [choice], **head, **(more or {})})

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {
            "created": CREATED,
            "id": self.id,
            "model": self.model,
            "system_fingerprint": "b0-fake",
            "object": kind,
        }


def sse(body: Mapping[str, Any]) -> bytes:
    """Frame one event as llama.cpp does."""
    return b"data: " + compact(body).encode() + b"\n\n"


def compact(body: Mapping[str, Any]) -> str:
    """Write JSON without blanks, as llama.cpp does."""
    return json.dumps(body, separators=(",", ":"))


def error(status: int, message: str, kind: str) -> dict[str, Any]:
    """llama.cpp's error body."""
    return {"error": {"code": status, "message": message, "type": kind}}
