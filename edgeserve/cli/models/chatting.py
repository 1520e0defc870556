"""Models that chat: their names, out of the list of models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

STATES = ("loaded", "loading", "available")


def chatting(models: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of the models that chat, and of their variants after them.

    Loaded ones come first, so that the first one answers at once.
    """
    able = [each for each in models if "chat" in each.get("abilities", ("chat",))]
    able.sort(key=lambda each: STATES.index(each.get("state", STATES[0])))
    return [name for each in able for name in _names(each)]


def _names(model: Mapping[str, Any]) -> list[str]:
    name = str(model["id"])
    variants = [str(each["name"]) for each in model.get("variants", ())]
    return [name, *(each for each in variants if each != name)]
