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
        """Read a chunk. One comes for every token, even where its text is held back."""
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

    def continued(self, said: Transcript) -> dict[str, Any]:
        """Put the text behind the prompt."""
        prompt = behind(self._request.get("prompt"), said.text)
        return {**self._request, "prompt": prompt}

    def adapt(self, event: dict[str, Any], said: Transcript, tally: TokenCount) -> None:
        """Rename the chunk and complete its counts."""
        chunks.adapt(event, said, tally)

    def end_events(self, said: Transcript, tally: TokenCount) -> bytes:
        """Write the last chunk, with the usage where it is known, and `[DONE]`."""
        stop = {"text": "", "index": 0, "logprobs": None, "finish_reason": "length"}
        event = {"choices": [stop], **said.head, "object": _SHAPE}
        if tally.prompt is not None:
            event["usage"] = tally.usage({})
        return write_event(event) + chunks.DONE_EVENT

    def closing_events(self, said: Transcript) -> bytes:
        """Write `[DONE]`: the usage came with the reason for the end."""
        del said
        return chunks.DONE_EVENT


def behind(prompt: object, text: str) -> object:
    """Return the prompt with the text behind it, or raise Unfit.

    Not for prompts of token ids: engines tokenize a string behind them on its own, and
    some tokenizers then begin it with a space.
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
    """The last chunk of each choice is the whole answer but for its text."""

    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = {}
        self._finals: dict[int, Json] = {}
        self._done = False

    def add(self, event: Event) -> None:
        """See `Aggregate.add`."""
        self._done = self._done or event.data == b"[DONE]"
        if (data := data_of(event)) is None:
            return
        for choice in data["choices"]:
            index: int = choice["index"]
            self._texts.setdefault(index, []).append(choice["text"])
            if choice["finish_reason"] is not None:
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
