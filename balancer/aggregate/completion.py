"""/v1/completions: pieces of text to texts."""

from __future__ import annotations

from balancer.aggregate.answer import Incomplete, Json, data_of, encoded
from balancer.sse import Event


class Completion:
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
