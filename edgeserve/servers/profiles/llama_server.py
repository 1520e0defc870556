"""llama-server profile: llama.cpp's own server, started by hand. Pure.

Started without a model it is a router: its models load when they are asked for.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from edgeserve.servers.profiles.base import (
    NOTHING,
    Json,
    Profile,
    Replies,
    ServedModel,
    cards,
    unwell,
    whole,
)
from edgeserve.wire import MALFORMED, Ability

PROPS, HEALTH, SLOTS = "/props", "/health", "/slots"


class LlamaServer(Profile):
    """llama-server tells its slots, their context, and which of them work."""

    kind = "llama-server"
    asks = (PROPS,)
    looks = (PROPS, HEALTH, SLOTS)
    width = 1

    def recognises(self, replies: Replies) -> bool:
        """See `Profile.recognises`."""
        props = replies.get(PROPS, NOTHING).json
        if props.get("role") == "router":
            return True
        return isinstance(props.get("build_info"), str) and "total_slots" in props

    def models(self, replies: Replies) -> tuple[ServedModel, ...]:
        """See `Profile.models`; a router's without those that it cannot load."""
        props = replies.get(PROPS, NOTHING).json
        settings, kinds = props.get("default_generation_settings"), _modalities(props)
        away = _away(replies)
        context = settings.get("n_ctx") if isinstance(settings, dict) else 0
        return tuple(
            msgspec.structs.replace(
                each, context=whole(context), abilities=(*each.abilities, *kinds)
            )
            for each in super().models(replies)
            if each.id not in away
        )

    def problem(self, replies: Replies) -> str:
        """See `Profile.problem`."""
        return unwell(replies.get(HEALTH, NOTHING), HEALTH)

    def read_width(self, replies: Replies) -> int:
        """See `Profile.read_width`."""
        return whole(replies.get(PROPS, NOTHING).json.get("total_slots"))

    def running(self, replies: Replies) -> int:
        """See `Profile.running`."""
        reply = replies.get(SLOTS, NOTHING)
        try:
            slots = msgspec.json.decode(reply.body, type=list[Json])
        except MALFORMED:
            return 0
        working = sum(each.get("is_processing") is True for each in slots)
        return working if reply.status == 200 else 0


def _away(replies: Replies) -> set[str]:
    """Return the models of a router that are not there yet, or failed to load."""
    states = {each["id"]: each.get("status") for each in cards(replies)}
    return {
        name
        for name, state in states.items()
        if isinstance(state, dict)
        and (state.get("failed") is True or state.get("value") == "downloading")
    }


def _modalities(props: Json) -> tuple[Ability, ...]:
    found = props.get("modalities")
    told = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    kinds: tuple[Ability, ...] = ("vision", "audio")
    return tuple(each for each in kinds if told.get(each) is True)
