"""Ray Serve profile. Pure.

An application behind Ray's proxy is one engine, however many replicas it has: their
number changes with its load, and nothing at its port tells it. What the application
answers beside OpenAI's API is of one replica, and is not asked.
"""

from __future__ import annotations

import msgspec

from edgeserve.servers.profiles.base import (
    NOTHING,
    OPEN_MESSAGE,
    Json,
    Profile,
    Replies,
    ServedModel,
    cards,
    whole,
)

ROUTES, HEALTH = "/-/routes", "/-/healthz"


class RayServe(Profile):
    """Ray Serve, with its LLM application or any other."""

    kind = "ray-serve"
    asks = (ROUTES,)
    looks = (HEALTH,)
    width = 8
    continues = OPEN_MESSAGE  # what its LLM application and ours understand

    def recognises(self, replies: Replies) -> bool:
        """See `Profile.recognises`."""
        routes = replies.get(ROUTES, NOTHING).json
        return bool(routes) and all(
            path.startswith("/") and isinstance(name, str)
            for path, name in routes.items()
        )

    def models(self, replies: Replies) -> tuple[ServedModel, ...]:
        """See `Profile.models`; its LLM application may tell the context."""
        told = {card["id"]: _context(card) for card in cards(replies)}
        return tuple(
            msgspec.structs.replace(each, context=each.context or told[each.id])
            for each in super().models(replies)
        )

    def problem(self, replies: Replies) -> str:
        """See `Profile.problem`."""
        reply = replies.get(HEALTH, NOTHING)
        if reply.text.strip() == "success":
            return ""
        said = reply.body[:100].decode(errors="replace").strip()
        return f"{HEALTH} answered {reply.status} ({said}): its proxy is not well"


def _context(card: Json) -> int:
    found = card.get("metadata")
    return (
        whole(found.get("max_request_context_length")) if isinstance(found, dict) else 0
    )
