"""Refusals of orders: why an engine is not loaded or unloaded now.

EdgeserveError
├── UnknownEngine       404  no engine of the node has that id
├── EnginesBusy         409  what is in the way works; come back, or ask to drain it
├── DoesNotFit          409  even without all that may leave there is no room
├── ModelForbidden      409  the node was told never to load it
├── ModelPinned         409  the node was told to keep it loaded
└── LoadFailed          409  it failed to load a short while ago
"""

from __future__ import annotations

from collections.abc import Iterable

from edgeserve.errors import EdgeserveError

RETRY_AFTER = 2
"""Seconds after which busy engines may be idle."""


class UnknownEngine(EdgeserveError):
    """No engine of this node has that id."""

    status = 404
    code = "engine_not_found"

    def __init__(self, id_: str, known: Iterable[str]) -> None:
        there = ", ".join(sorted(known)) or "none"
        super().__init__(f"this node has no engine {id_!r}; it has: {there}")


class EnginesBusy(EdgeserveError):
    """Enough engines could leave, but they have requests, or are just loading."""

    status = 409
    code = "engines_busy"
    retry_after = RETRY_AFTER

    def __init__(self, id_: str, busy: Iterable[str]) -> None:
        names = ", ".join(sorted(busy))
        super().__init__(
            f"{id_} has to wait for engines that are in use: {names}; try again, or"
            " order it with `drain`"
        )


class DoesNotFit(EdgeserveError):
    """There is no room, even without all engines that may leave."""

    status = 409
    code = "does_not_fit"

    def __init__(self, id_: str, why: str) -> None:
        super().__init__(f"{id_} does not fit: {why}")


class ModelForbidden(EdgeserveError):
    """The node was told never to load the model."""

    status = 409
    code = "model_forbidden"

    def __init__(self, model: str) -> None:
        super().__init__(f"{model} is forbidden on this node; allow it there first")


class ModelPinned(EdgeserveError):
    """The node was told to keep the model loaded."""

    status = 409
    code = "model_pinned"

    def __init__(self, model: str) -> None:
        super().__init__(
            f"{model} is pinned on this node, by an order, which `edgeserve models pin"
            f" {model} --off` ends, or by its settings"
        )


class LoadFailed(EdgeserveError):
    """It failed to load a short while ago."""

    status = 409
    code = "load_failed"

    def __init__(self, id_: str, why: str, seconds: float) -> None:
        super().__init__(f"{id_} failed to load: {why}; come back in {seconds:.0f} s")
        self.retry_after = max(1, int(seconds + 0.999))
