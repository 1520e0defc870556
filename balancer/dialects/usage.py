"""Token usage: count the tokens of an answer that several engines wrote. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class TokenCount:
    """Tokens of the whole answer.

    `before`: tokens of the earlier engines. First a lower bound, because an engine
    sends one event for a character of several tokens. It becomes exact when the next
    engine reports the length of its prompt, if the length of the first is known.
    `prompt`: tokens of the client's request, without the text carried over.
    `limit`: the most tokens the client wants, None for no limit.
    `most`: the upper bound of `before`; another variant may count its prompt in another
    way. `here`: tokens of the engine that continues. `granted`: `before` when that
    engine was asked.
    """

    before: int
    prompt: int | None
    limit: int | None
    most: int
    here: int = 0
    granted: int = 0

    def __post_init__(self) -> None:
        self.granted = self.before

    @property
    def total(self) -> int:
        """Tokens of the answer so far."""
        return self.before + self.here

    def saw_prompt(self, tokens: int) -> None:
        """Take the length of the longer prompt, as the next engine counts it."""
        before = None if self.prompt is None else tokens - self.prompt
        if before is None or before > self.most:
            self.prompt = max(0, tokens - self.before)
        else:
            self.before = max(self.before, before)

    @property
    def past_limit(self) -> bool:
        """Whether the last event has one token too many."""
        return self.limit is not None and self.total > self.limit

    @property
    def at_limit(self) -> bool:
        """Whether the answer must end here, though the engine was granted more."""
        if self.limit is None or self.before == self.granted:
            return False
        return self.total >= self.limit

    def usage(self, engine: dict[str, Any]) -> dict[str, Any]:
        """Return an OpenAI usage object for the whole answer."""
        prompt = self.prompt or 0
        merged = {
            **engine,
            "completion_tokens": self.total,
            "prompt_tokens": prompt,
            "total_tokens": self.total + prompt,
        }
        details = engine.get("prompt_tokens_details")
        if isinstance(details, dict):
            merged["prompt_tokens_details"] = _at_most(details, "cached_tokens", prompt)
        return merged

    def timings(self, engine: dict[str, Any]) -> dict[str, Any]:
        """Return the last engine's timings for the whole answer.

        Counts are those of the answer, rates are those of the last engine, durations
        follow from both.
        """
        prompt = self.prompt or 0
        merged = _at_most(engine, "cache_n", prompt)
        merged["prompt_n"] = prompt - int(merged.get("cache_n", 0))
        merged["predicted_n"] = self.total
        for phase, more in (
            ("prompt", merged["prompt_n"] - _number(engine, "prompt_n")),
            ("predicted", self.before),
        ):
            each = _number(engine, f"{phase}_per_token_ms")
            spent = _number(engine, f"{phase}_ms") + more * each
            merged[f"{phase}_ms"] = max(0.0, spent)
        return merged


def _number(values: dict[str, Any], key: str) -> float:
    value = values.get(key)
    return value if isinstance(value, (int, float)) else 0.0


def _at_most(values: dict[str, Any], key: str, most: int) -> dict[str, Any]:
    return {**values, key: min(int(_number(values, key)), most)}
