"""Completion dialect: `/v1/completions`, aggregated and resumed. Pure."""

from __future__ import annotations

from typing import Any

from balancer.dialects import chunks
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
from balancer.dialects.usage import TokenCount
from edgeserve.http.sse import DONE, Event, write_event
from edgeserve.openai import prompts

_SHAPE = "text_completion"


class Completion(Dialect):
    """OpenAI's completion format."""

    usage_on_request = True
    end_marks, end_hint = chunks.END_MARKS, DONE
    output_format = "json_schema"
    has_echo = True
    budgets = chunks.BUDGETS

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request
        self.answers = chunks.each(request) * prompts(request.get("prompt"))
        self.wants_usage = chunks.wants_usage(request)

    @classmethod
    def has_content(cls, name: str, data: Json) -> bool:
        """See `Dialect.has_content`."""
        del name
        return any(
            choice.get("text") or choice.get("finish_reason")
            for choice in data.get("choices", [])
        )

    @classmethod
    def aggregate(cls) -> Aggregate:
        """See `Dialect.aggregate`."""
        return CompletionAggregate()

    def parse(self, event: dict[str, Any]) -> ParsedEvent:
        """Read a chunk; each token has one, even while its text is held back."""
        first = chunks.choice(event)
        last = first.get("finish_reason") is not None
        progress = "prompt_progress" in event
        return ParsedEvent(
            text=first.get("text") or "",
            step=bool(first) and not (last or progress),
            tokens=chunks.predicted(event),
            prompt=chunks.prompt_tokens(event),
            progress=progress,
            last=last,
            head=chunks.names(event),
        )

    def continued(self, transcript: Transcript) -> dict[str, Any]:
        """Append the text to the prompt."""
        prompt = appended(self._request.get("prompt"), transcript.text)
        return {**self._request, "prompt": prompt}

    def adapt(
        self, event: dict[str, Any], transcript: Transcript, count: TokenCount
    ) -> None:
        """Set the names and the counts of the answer."""
        chunks.adapt(event, transcript, count)

    def end_events(self, transcript: Transcript, count: TokenCount) -> bytes:
        """Write the last chunk, with the usage if known, and `[DONE]`."""
        stop = {"text": "", "index": 0, "logprobs": None, "finish_reason": "length"}
        event = {"choices": [stop], **transcript.head, "object": _SHAPE}
        if count.prompt is not None:
            event["usage"] = count.usage({})
        return write_event(event) + chunks.DONE_EVENT

    def closing_events(self, transcript: Transcript) -> bytes:
        """Write `[DONE]`: the usage came with the finish reason."""
        del transcript
        return chunks.DONE_EVENT


def appended(prompt: object, text: str) -> object:
    """Return the prompt with the text appended, or raise CannotResume.

    Prompts of token ids cannot be continued by text: engines tokenize such a string on
    its own, and some tokenizers then begin it with a space.
    """
    if isinstance(prompt, str):
        return prompt + text
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        return [prompt[0] + text]
    if isinstance(prompt, dict) and isinstance(prompt.get("prompt_string"), str):
        return {**prompt, "prompt_string": prompt["prompt_string"] + text}
    if isinstance(prompt, list) and any(isinstance(part, int) for part in prompt):
        raise CannotResume("the prompt is given as token ids")
    raise CannotResume("the request has several prompts")


class CompletionAggregate:
    """Aggregates completions: the last chunk of a choice has all but its text."""

    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = {}
        self._finals: dict[int, Json] = {}
        self._done = False

    def add(self, event: Event) -> None:
        """See `Aggregate.add`."""
        self._done = self._done or event.data == b"[DONE]"
        if (data := data_of(event)) is None:
            return
        for choice in data.get("choices") or ():
            index: int = choice["index"]
            self._texts.setdefault(index, []).append(choice.get("text") or "")
            if choice.get("finish_reason") is not None:
                self._finals[index] = data

    def body(self) -> bytes:
        """See `Aggregate.body`."""
        indices = sorted(self._finals)
        if not self._done or not indices:
            raise Incomplete
        choices = [self._choice(index) for index in indices]
        return encoded({**self._finals[indices[0]], "choices": choices})

    def _choice(self, index: int) -> Json:
        choice: Json = self._finals[index]["choices"][0]
        return {**choice, "text": "".join(self._texts[index])}
