"""Token usage: count the tokens of an answer that two engines wrote. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class TokenCount:
    """Tokens of the whole answer.

    `before`: written by engines that are gone. A lower bound at first: an engine sends
    one event for a character that took several tokens. It becomes exact when the next
    engine says how long its prompt is, where the length of the first is known.
    `prompt`: of the client's request, without the text carried over.
    `limit`: most tokens the client wants, None for no limit.
    `most`: more than this `before` cannot be; another variant may count its prompt in
    another way. `here`: written by the engine that goes on.
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
        """Learn how many tokens the next engine counts in its longer prompt."""
        before = None if self.prompt is None else tokens - self.prompt
        if before is None or before > self.most:
            self.prompt = max(0, tokens - self.before)
        else:
            self.before = max(self.before, before)

    @property
    def past_limit(self) -> bool:
        """Whether the last event holds a token too many."""
        return self.limit is not None and self.total > self.limit

    @property
    def at_limit(self) -> bool:
        """Whether nothing may follow, though the engine was granted more."""
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

        Counts are those of the answer, rates those of the engine that finished it, and
        durations follow from both.
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
