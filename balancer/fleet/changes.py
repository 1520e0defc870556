"""Changes: notify subscribers that something they depend on has changed."""

from __future__ import annotations

from collections.abc import Callable


class Changes:
    """The listeners of one kind of change; shared by the notifier and its listeners."""

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` at every change, in the order of subscription."""
        self._listeners.append(listener)

    def notify(self) -> None:
        """Call every listener."""
        for listener in self._listeners:
            listener()
