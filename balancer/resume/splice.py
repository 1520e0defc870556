"""Turn the stream of the engine that goes on into the rest of the stream it mends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from balancer.resume.dialect import Dialect, Heard, Said
from balancer.resume.frames import (
    DONE,
    decoded,
    events,
    is_error,
    whole_events,
    written,
)
from balancer.resume.tally import Tally
from balancer.sse import Event


class Splice:
    """Feed it what the next engine sends; it returns what the client should get.

    `finished`: the answer is complete; whatever else comes is to be thrown away.
    `error`: the engine's own error event, which is kept from the client; None while
    all is well. Nothing more comes out after either.
    """

    def __init__(
        self, dialect: Dialect, said: Said, tally: Tally, *, timings: bool
    ) -> None:
        self._dialect = dialect
        self._said = said
        self._tally = tally
        self._timings = timings
        self._rest = b""
        self._text = ""
        self._prompt_seen = False
        self.finished = False
        self.error: dict[str, Any] | None = None

    def feed(self, data: bytes) -> bytes:
        """Take some bytes, cut anywhere; return whole events for the client."""
        whole, self._rest = whole_events(self._rest + data)
        out = bytearray()
        for each in events(whole):
            if self.finished or self.error is not None:
                break
            out += self._pass(each)
        return bytes(out)

    def _pass(self, each: Event) -> bytes:
        if each.data == DONE:
            self.finished = True
            return each.raw
        if each.comment:
            return each.raw
        try:
            event = decoded(each.data)
        except ValueError as error:
            self.error = {"message": f"the engine sent no JSON: {error}"}
            return b""
        if is_error(event):
            self.error = event
            return b""
        return self._adopt(each.name, event, self._dialect.hear(event))

    def _adopt(self, name: str, event: dict[str, Any], heard: Heard) -> bytes:
        self._count(heard)
        if self._again(heard):
            return b""
        if self._tally.past_limit and not heard.last:
            return self._end()
        if not (self._timings or heard.last):
            event.pop("timings", None)
        event.pop("prompt_progress", None)
        self._dialect.adopt(event, self._said, self._tally)
        self.finished = self._dialect.closes(event)
        out = written(event, name)
        self._text += heard.text
        if heard.text and self._tally.at_limit:
            out += self._end()
        return out

    def _count(self, heard: Heard) -> None:
        if heard.prompt is not None and not self._prompt_seen:
            self._tally.saw_prompt(heard.prompt)
            self._prompt_seen = True
        if heard.tokens is not None:
            self._tally.here = heard.tokens
        elif heard.step:
            self._tally.here += 1

    def _again(self, heard: Heard) -> bool:
        """Whether the client has it already, or has no use for it."""
        if heard.opening is None:
            return heard.progress
        again = self._said.begun or heard.opening in self._said.openings
        self._said.openings.add(heard.opening)
        return again and not heard.last

    def _end(self) -> bytes:
        """End the answer here: the engine was granted more than was left."""
        self.finished = True
        self._tally.here = (self._tally.limit or 0) - self._tally.before
        whole = replace(self._said, text=self._said.text + self._text)
        return self._dialect.ending(whole, self._tally)
