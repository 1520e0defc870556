"""Native dialect: llama.cpp's `/completion` and `/infill`. Pure."""

from __future__ import annotations

from typing import Any

from balancer.dialects import chunks
from balancer.dialects.base import (
    Aggregate,
    Dialect,
    Incomplete,
    Json,
    ParsedEvent,
    Transcript,
    data_of,
    encoded,
)
from balancer.dialects.completion import appended
from balancer.dialects.usage import TokenCount
from edgeserve.http.sse import Event, write_event
from edgeserve.openai import RequestFields, prompts

_STOPS, _GOES_ON = b'"stop":true', b'"stop":false'
"""What each event holds; the request may filter it out of the last."""


class Native(Dialect):
    """llama-server's own completion format."""

    end_hint = _STOPS
    output_format = "json_schema"
    budgets = chunks.BUDGETS

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request
        self.answers = chunks.each(request) * prompts(request.get("prompt"))

    @classmethod
    def has_content(cls, name: str, data: Json) -> bool:
        """See `Dialect.has_content`."""
        del name
        return bool(data.get("content")) or _stops(data)

    @classmethod
    def ends(cls, request: RequestFields) -> int:
        """See `Dialect.ends`: no event ends all answers."""
        return request.answers

    @classmethod
    def ends_in(cls, events: bytes, *, filtered: bool) -> int:
        """See `Dialect.ends_in`."""
        if not filtered:
            return events.count(_STOPS)
        return (b"\n" + events).count(b"\ndata: ") - events.count(_GOES_ON)

    @classmethod
    def filters_end(cls, request: RequestFields) -> bool:
        """See `Dialect.filters_end`: `response_fields` may do so."""
        return bool(request.response_fields)

    @classmethod
    def aggregate(cls) -> Aggregate:
        """See `Dialect.aggregate`."""
        return NativeAggregate()

    def parse(self, event: dict[str, Any]) -> ParsedEvent:
        """Read a chunk; it has the token's id and both counts."""
        stop, progress = _stops(event), "prompt_progress" in event
        ids: Any = event.get("tokens")
        return ParsedEvent(
            text=event.get("content") or "",
            step=not (stop or progress),
            tokens=chunks.whole(event.get("tokens_predicted")),
            ids=tuple(ids) if isinstance(ids, list) else (),
            prompt=chunks.whole(event.get("tokens_evaluated")),
            progress=progress,
            last=stop,
        )

    def is_last(self, event: dict[str, Any]) -> bool:
        """See `Dialect.is_last`; there is no `[DONE]`."""
        return _stops(event)

    def continued(self, transcript: Transcript) -> dict[str, Any]:
        """Append the tokens to the prompt, or the text where an id is missing.

        A character of several tokens is one event with the id of the last.
        """
        prompt: Any = self._request.get("prompt")
        if transcript.ids and _is_single(prompt):
            start: list[Any] = prompt if isinstance(prompt, list) else [prompt]
            prompt = [*start, *transcript.ids]
        else:
            prompt = appended(prompt, transcript.text)
        return {**self._request, "prompt": prompt}

    def adapt(
        self, event: dict[str, Any], transcript: Transcript, count: TokenCount
    ) -> None:
        """Set the counts of the answer, and restore the original prompt."""
        if "tokens_predicted" in event:
            event["tokens_predicted"] = count.total
        if "tokens_evaluated" in event and count.prompt is not None:
            event["tokens_evaluated"] = count.prompt
        if isinstance(event.get("prompt"), str):
            event["prompt"] = event["prompt"].removesuffix(transcript.text)
        if isinstance(event.get("timings"), dict):
            event["timings"] = count.timings(event["timings"])
        if isinstance(event.get("generation_settings"), dict):
            event["generation_settings"] |= self._settings(count)

    def _settings(self, count: TokenCount) -> dict[str, Any]:
        limit = -1 if count.limit is None else count.limit
        per_token = bool(self._request.get("timings_per_token"))
        return {"max_tokens": limit, "n_predict": limit, "timings_per_token": per_token}

    def end_events(self, transcript: Transcript, count: TokenCount) -> bytes:
        """Write the last event, without the settings that only an engine knows."""
        del transcript
        last: dict[str, Any] = {
            "index": 0,
            "content": "",
            "tokens": [],
            "stop": True,
            "tokens_predicted": count.total,
            "tokens_evaluated": count.prompt or 0,
            "truncated": False,
            "stop_type": "limit",
            "stopping_word": "",
        }
        fields: Any = self._request.get("response_fields")
        if isinstance(fields, list) and fields:
            last = {key: last[key] for key in fields if key in last}
        return write_event(last)

    def closing_events(self, transcript: Transcript) -> bytes:
        """Write nothing: the finish reason is in the last event."""
        del transcript
        return b""


def _stops(event: dict[str, Any]) -> bool:
    """Whether this is a last event; `response_fields` may have removed the field."""
    return event.get("stop") is not False


def _is_single(prompt: object) -> bool:
    """Whether this is one prompt, to which token ids may be appended."""
    if isinstance(prompt, str):
        return True
    if not isinstance(prompt, list):
        return False
    return len(prompt) == 1 or any(isinstance(part, int) for part in prompt)


class NativeAggregate:
    """Aggregates native events: the last one of a prompt has all but the content."""

    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = {}
        self._finals: dict[int, Json] = {}

    def add(self, event: Event) -> None:
        """See `Aggregate.add`."""
        if (data := data_of(event)) is None:
            return
        index: int = data["index"]
        self._texts.setdefault(index, []).append(data["content"])
        if data["stop"]:
            self._finals[index] = data

    def body(self) -> bytes:
        """See `Aggregate.body`; several prompts give a list."""
        if not self._finals or self._finals.keys() != self._texts.keys():
            raise Incomplete
        answers = [self._answer(index) for index in sorted(self._finals)]
        return encoded(answers[0] if len(answers) == 1 else answers)

    def _answer(self, index: int) -> Json:
        final = self._finals[index]
        settings: Json = final.get("generation_settings", {})
        text = "".join(self._texts[index])
        return {
            **final,
            "content": text,
            "generation_settings": {**settings, "stream": False},
        }
