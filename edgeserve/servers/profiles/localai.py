"""LocalAI profile. Pure.

It imitates Ollama, too. It lists images, voices and sounds among its models; newer
versions tell what each can do. It tells neither context, nor width, nor load.
"""

from __future__ import annotations

import msgspec

from edgeserve.servers.profiles.base import (
    NOTHING,
    Json,
    Profile,
    Replies,
    ServedModel,
    entries,
    unwell,
)
from edgeserve.wire import Ability

WELL_KNOWN, READY = "/.well-known/localai.json", "/readyz"
CAN = "/v1/models/capabilities"

_ABILITIES: dict[str, tuple[Ability, ...]] = {
    "chat": ("chat", "tools"),
    "completion": ("completion",),
    "embeddings": ("embeddings",),
    "vision": ("vision",),
}
"""What its words mean here; it passes tools to every model that chats."""


class LocalAI(Profile):
    """LocalAI loads its models when they are asked for, and serves them in turn."""

    kind = "localai"
    asks = (WELL_KNOWN,)
    looks = (READY, CAN)
    width = 1
    cache = "slots"

    def recognises(self, replies: Replies) -> bool:
        """See `Profile.recognises`."""
        told = replies.get(WELL_KNOWN, NOTHING).json
        return "version" in told and isinstance(told.get("endpoints"), dict)

    def models(self, replies: Replies) -> tuple[ServedModel, ...]:
        """See `Profile.models`; those that write no text are left out."""
        told = {str(card.get("id")): _abilities(card) for card in _cards(replies)}
        return tuple(
            msgspec.structs.replace(each, abilities=told.get(each.id, each.abilities))
            for each in super().models(replies)
            if told.get(each.id, each.abilities)
        )

    def problem(self, replies: Replies) -> str:
        """See `Profile.problem`."""
        return unwell(replies.get(READY, NOTHING), READY)


def _cards(replies: Replies) -> list[Json]:
    listed = entries(replies, CAN, "data")
    return [each for each in listed if isinstance(each.get("capabilities"), list)]


def _abilities(card: Json) -> tuple[Ability, ...]:
    words = [str(each) for each in card["capabilities"]]
    return tuple(
        dict.fromkeys(ability for word in words for ability in _ABILITIES.get(word, ()))
    )
