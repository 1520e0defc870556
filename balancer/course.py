"""What an attempt tells about its request while an engine works on it.

`room.claim` hands a `Course` out with the slot (`send.course`), and whoever carries the
answer calls it. Every call is cheap and none raises. Leaving the claim without
`answered` means that the request was cancelled, refused or lost.
"""

from __future__ import annotations

from typing import Protocol

from balancer.lane import Timings


class Course(Protocol):
    """One request at one engine, as the wire shows it.

    `slot` is the llama.cpp slot that the request should name (`id_slot`), None where
    the engine may choose. `first_seconds` is the predicted time from sending to the
    first token, None where nothing is predicted.
    """

    slot: int | None
    first_seconds: float | None

    def progress(self, total: int, cached: int, processed: int) -> None:
        """A `prompt_progress` came: tokens of the prompt, found cached, read so far."""
        ...

    def wrote(self) -> None:
        """The first token came. Later calls change nothing."""
        ...

    def answered(self, timings: Timings | None) -> None:
        """The answer is whole; `timings` are llama.cpp's, where it gave any."""
        ...


class Unfollowed:
    """For policies that learn nothing."""

    slot: int | None = None
    first_seconds: float | None = None

    def progress(self, total: int, cached: int, processed: int) -> None:
        """Let it pass."""

    def wrote(self) -> None:
        """Let it pass."""

    def answered(self, timings: Timings | None) -> None:
        """Let it pass."""


UNFOLLOWED: Course = Unfollowed()
