"""llama-server profile: llama.cpp's own server, started by hand. Pure.

Started without a model it is a router: its models load when they are asked for, and
each that is loaded tells its own slots.
"""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import quote

import msgspec

from edgeserve.servers.profiles.base import (
    NOTHING,
    Json,
    Profile,
    Replies,
    Reply,
    ServedModel,
    cards,
    gauge,
    unwell,
    whole,
)
from edgeserve.wire import MALFORMED, Ability

PROPS, HEALTH, SLOTS, METRICS = "/props", "/health", "/slots", "/metrics"
PROCESSING, DEFERRED = "llamacpp:requests_processing", "llamacpp:requests_deferred"

MOST_LOADED = 16
"""Models of a router that are looked at."""


class LlamaServer(Profile):
    """llama-server tells its slots, their context, and which of them work."""

    kind = "llama-server"
    asks = (PROPS,)
    looks = (PROPS, HEALTH, SLOTS, METRICS)
    width = 1
    cache = "slots"
    llama_cpp = True

    def recognises(self, replies: Replies) -> bool:
        """See `Profile.recognises`."""
        props = replies.get(PROPS, NOTHING).json
        if props.get("role") == "router":
            return True
        return isinstance(props.get("build_info"), str) and "total_slots" in props

    def more_looks(self, replies: Replies) -> tuple[str, ...]:
        """See `Profile.more_looks`; looking at a model must not load it."""
        if replies.get(PROPS, NOTHING).json.get("role") != "router":
            return ()
        loaded = [each["id"] for each in cards(replies) if _is_loaded(each)]
        return tuple(
            _of(path, each) for each in loaded[:MOST_LOADED] for path in (PROPS, SLOTS)
        )

    def models(self, replies: Replies) -> tuple[ServedModel, ...]:
        """See `Profile.models`; a router's without those that it cannot load."""
        away = _away(replies)
        found = (each for each in super().models(replies) if each.id not in away)
        return tuple(_model(replies, each) for each in found)

    def problem(self, replies: Replies) -> str:
        """See `Profile.problem`."""
        return unwell(replies.get(HEALTH, NOTHING), HEALTH)

    def read_width(self, replies: Replies) -> int:
        """See `Profile.read_width`."""
        return whole(replies.get(PROPS, NOTHING).json.get("total_slots"))

    def running(self, replies: Replies) -> int:
        """See `Profile.running`; without `--metrics` those that wait are not told."""
        metrics = replies.get(METRICS, NOTHING)
        working = _working(replies.get(SLOTS, NOTHING))
        if working is None:
            working = gauge(metrics, PROCESSING)
        return working + gauge(metrics, DEFERRED)

    def waiting(self, replies: Replies) -> int:
        """See `Profile.waiting`."""
        return gauge(replies.get(METRICS, NOTHING), DEFERRED)


def _of(path: str, model: str) -> str:
    """Return the path of a router that asks one of its models."""
    return f"{path}?model={quote(model, safe='')}&autoload=false"


def _is_loaded(card: Json) -> bool:
    status = card.get("status")
    return isinstance(status, dict) and status.get("value") == "loaded"


def _model(replies: Replies, found: ServedModel) -> ServedModel:
    own = replies.get(_of(PROPS, found.id))
    props = (own or replies.get(PROPS, NOTHING)).json
    settings, kinds = props.get("default_generation_settings"), _modalities(props)
    context = settings.get("n_ctx") if isinstance(settings, dict) else 0
    return msgspec.structs.replace(
        found,
        context=whole(context),
        abilities=(*found.abilities, *kinds),
        width=whole(props.get("total_slots")) if own else 0,
        running=_working(replies.get(_of(SLOTS, found.id), NOTHING)),
    )


def _working(reply: Reply) -> int | None:
    """Count the slots that work, None where the server does not show them."""
    try:
        slots = msgspec.json.decode(reply.body, type=list[Json])
    except MALFORMED:
        return None
    if reply.status != 200:
        return None
    return sum(each.get("is_processing") is True for each in slots)


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
