"""LM Studio profile. Pure.

It answers 200 with an error to every path that it does not know, so only fields count.
What it lists under `/v1` is loaded, or loads when it is asked for. From 0.4 on it tells
the context of what is loaded, and how many requests an instance answers at once.
"""

from __future__ import annotations

import msgspec

from edgeserve.servers.profiles.base import (
    NOTHING,
    TEXT,
    Json,
    Profile,
    Replies,
    ServedModel,
    entries,
    whole,
)
from edgeserve.wire import Ability

GREETING, NATIVE, OLDER = "/lmstudio-greeting", "/api/v1/models", "/api/v0/models"


class LMStudio(Profile):
    """LM Studio; versions before 0.4 answer one request after the other."""

    kind = "lmstudio"
    asks = (GREETING, NATIVE, OLDER)
    looks = (NATIVE, OLDER)
    width = 4
    cache = "slots"

    def recognises(self, replies: Replies) -> bool:
        """See `Profile.recognises`."""
        greets = replies.get(GREETING, NOTHING).json.get("lmstudio") is True
        new = any("loaded_instances" in each for each in _new(replies))
        return greets or new or any("compatibility_type" in e for e in _old(replies))

    def models(self, replies: Replies) -> tuple[ServedModel, ...]:
        """See `Profile.models`."""
        told = {name: card for card in _new(replies) for name in _names(card)}
        told |= {str(each.get("id")): each for each in _old(replies)} | told
        return tuple(
            msgspec.structs.replace(
                each,
                context=_context(told[each.id], each.id),
                abilities=_abilities(told[each.id], each.abilities),
            )
            if each.id in told
            else each
            for each in super().models(replies)
        )

    def read_width(self, replies: Replies) -> int:
        """See `Profile.read_width`; the least of what is loaded."""
        cards = _new(replies)
        if not cards:
            return 1 if _old(replies) else 0
        loaded = [each for card in cards for each in _instances(card)]
        widths = [whole(_config(each).get("parallel")) for each in loaded]
        return min((each for each in widths if each), default=0)


def _new(replies: Replies) -> list[Json]:
    return entries(replies, NATIVE, "models")


def _old(replies: Replies) -> list[Json]:
    return entries(replies, OLDER, "data")


def _names(card: Json) -> list[str]:
    """Return what a model can be called: its key, and each of its instances."""
    return [str(card.get("key")), *(str(each.get("id")) for each in _instances(card))]


def _instances(card: Json) -> list[Json]:
    found = card.get("loaded_instances")
    listed = found if isinstance(found, list) else []
    return [each for each in listed if isinstance(each, dict)]


def _config(instance: Json) -> Json:
    found = instance.get("config")
    return found if isinstance(found, dict) else {}


def _context(card: Json, name: str) -> int:
    """Return the context that is served; what it was trained for tells nothing."""
    told = whole(card.get("loaded_context_length"))  # older versions
    loaded = _instances(card)
    named = [each for each in loaded if each.get("id") == name] or loaded
    contexts = [whole(_config(each).get("context_length")) for each in named]
    return min((each for each in contexts if each), default=told)


def _abilities(card: Json, guess: tuple[Ability, ...]) -> tuple[Ability, ...]:
    match card.get("type"):
        case "embedding" | "embeddings":
            return ("embeddings",)
        case "vlm":
            return (*TEXT, "vision")
        case "llm":
            can = card.get("capabilities")
            sees = isinstance(can, dict) and can.get("vision") is True
            return (*TEXT, "vision") if sees else TEXT
        case _:
            return guess
