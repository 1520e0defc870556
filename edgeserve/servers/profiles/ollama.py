"""Ollama profile. Pure.

It tells neither load nor width, and by default answers one request at a time. Its
`/v1` cannot set the context: 4096 tokens, unless a loaded model shows another.
"""

from __future__ import annotations

import msgspec

from edgeserve.servers.profiles.base import (
    NOTHING,
    Json,
    Profile,
    Replies,
    ServedModel,
    whole,
)

CONTEXT = 4096
"""Tokens; longer prompts are cut off without a word, so that more is not assumed."""

FRONT, VERSION, TAGS, LOADED = "/", "/api/version", "/api/tags", "/api/ps"


class OllamaServer(Profile):
    """Ollama loads its models when they are asked for."""

    kind = "ollama"
    asks = (FRONT, VERSION)
    looks = (TAGS, LOADED)
    width = 1
    cache = "slots"

    def recognises(self, replies: Replies) -> bool:
        """See `Profile.recognises`."""
        greets = replies.get(FRONT, NOTHING).text.strip() == "Ollama is running"
        return greets and "version" in replies.get(VERSION, NOTHING).json

    def models(self, replies: Replies) -> tuple[ServedModel, ...]:
        """See `Profile.models`; models of its cloud are left out."""
        away = {
            str(each.get("name"))
            for each in _models(replies, TAGS)
            if each.get("remote_host")
        }
        contexts = {
            str(each.get("name")): whole(each.get("context_length"))
            for each in _models(replies, LOADED)
        }
        return tuple(
            msgspec.structs.replace(each, context=contexts.get(each.id) or CONTEXT)
            for each in super().models(replies)
            if each.id not in away
        )


def _models(replies: Replies, path: str) -> list[Json]:
    found = replies.get(path, NOTHING).json.get("models")
    entries = found if isinstance(found, list) else []
    return [each for each in entries if isinstance(each, dict)]
