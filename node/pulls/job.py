"""Job: one pull of this node, and how far it is. A thread works at it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from msgspec import structs

from edgeserve.errors import CommandError
from edgeserve.orders.pulls import PullOrder, PullReport, SharedFile


class Cancelled(CommandError):
    """The pull was cancelled, or this node ends."""


class Job:
    """One pull. Methods that a thread calls raise Cancelled once it shall stop."""

    def __init__(self, id_: str, order: PullOrder) -> None:
        self.id, self.order = id_, order
        self.report = PullReport(
            id=id_, source=order.source, revision=order.revision, state="waiting"
        )
        self._begun = False
        self._stopping = threading.Event()

    def begin(self) -> None:
        """Note that a thread works at it."""
        self._begun = True
        self._set(state="fetching")

    def stop(self) -> None:
        """Have it end soon."""
        self._stopping.set()
        if not self._begun:
            self.ended("cancelled")

    @property
    def ending(self) -> bool:
        """Whether it has ended, or shall soon."""
        return self.report.over or self._stopping.is_set()

    def check(self) -> None:
        """Raise Cancelled if it shall stop."""
        if self._stopping.is_set():
            raise Cancelled("cancelled")

    def wait(self, seconds: float) -> None:
        """Wait, in a thread."""
        self._stopping.wait(seconds)
        self.check()

    def show(self, step: str, done: int, total: int) -> None:
        """Note a step of fetching or verifying; see `Show`."""
        self.check()
        if total:
            file, _, what = step.partition(": ")
            self._set(state="fetching", file=file, step=what, done=done, total=total)
        else:
            self._set(state="fetching", step=step)

    def waits(self, step: str) -> None:
        """Note what it waits for."""
        self.check()
        self._set(state="waiting", step=step)

    def came_from(self, *origins: str) -> None:
        """Note where the file that it is at comes from."""
        known = self.report.origins
        if not set(origins).issubset(known):
            self._set(origins=tuple(dict.fromkeys((*known, *origins))))

    def yields(self) -> None:
        """Note that no other node has to wait for it."""
        self._set(yields=True)

    def next_file(self) -> None:
        """Note that another file begins."""
        self._set(origins=())

    def note(self, *notes: str) -> None:
        """Add what is worth knowing."""
        self._set(notes=tuple(dict.fromkeys((*self.report.notes, *notes))))

    def has(self, files: Iterable[SharedFile]) -> None:
        """Note what the model consists of."""
        self._set(files=tuple(files))

    def arrived(self, path: Path) -> None:
        """Note that the model is here."""
        self._set(state="done", step="", path=str(path), done=self.report.total)

    def ended(self, how: Literal["failed", "cancelled"], why: str = "") -> None:
        """Note that it ended without the model."""
        self._set(state=how, step="", problem=why)

    def _set(self, **changes: object) -> None:
        self.report = structs.replace(self.report, **changes)
