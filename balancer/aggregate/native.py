"""/completion and /infill, in llama.cpp's own format: pieces of content to contents."""

from __future__ import annotations

from balancer.aggregate.answer import Incomplete, Json, data_of, encoded
from balancer.sse import Event


class Native:
    """The last event of each prompt is the whole answer but for its content."""

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
        """See `Aggregate.body`; several prompts make a list."""
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
