"""Tells a course what its stream shows: progress, first token, timings. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from balancer.course import Course
from balancer.job import Timings
from balancer.stream import PROGRESS, Flow, StreamedError
from balancer.timings import MARKS, progress_in, timings_in, usage_in, usage_streamed


@dataclass(slots=True)
class Told:
    """A flow that is listened to; what it says is not changed."""

    flow: Flow
    course: Course
    _wrote: bool = False
    _last: bytes = b""
    """The latest piece with timings or usage."""
    _first: bytes = b""
    """The one before it."""
    _whole: bool = False

    @property
    def begun(self) -> bool:
        """See `Flow`."""
        return self.flow.begun

    @property
    def worked(self) -> bool:
        """See `Flow`."""
        return self.flow.worked

    @property
    def prompt(self) -> int | None:
        """See `Flow`."""
        return self.flow.prompt

    @property
    def error(self) -> StreamedError | None:
        """See `Flow`."""
        return self.flow.error

    @property
    def ended(self) -> bool:
        """See `Flow`."""
        return self.flow.ended

    def feed(self, piece: bytes) -> bytes:
        """See `Flow.feed`."""
        if MARKS[0] in piece or MARKS[1] in piece:
            self._first, self._last = self._last, piece
        ready = self.flow.feed(piece)
        if not self._wrote:
            if PROGRESS in piece:
                self._tell_progress(piece)
            if ready and self.flow.begun:
                self._wrote = True
                self.course.wrote()
        return ready

    def whole(self, body: bytes) -> None:
        """An answer came that does not stream."""
        self._last, self._whole = body, True

    def answered(self) -> None:
        """The answer is complete."""
        self.course.answered(timings_in(self._last) or self._usage())

    def _usage(self) -> Timings | None:
        if self._whole:
            return usage_in(self._last)
        return usage_streamed(self._first + self._last)

    def _tell_progress(self, piece: bytes) -> None:
        found = progress_in(piece)
        if found is not None:
            self.course.progress(found.total, found.cache, found.processed)
