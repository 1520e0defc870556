"""Trace recorder: write one line per answered request, without content.

A line holds sizes, times and keyed hashes. The key ends with this process, so that
known texts cannot be looked for in a trace. An existing file is continued, even if a
crash or a full disk has damaged lines. A full disk costs lines, not requests.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from io import SEEK_END, FileIO
from pathlib import Path

from balancer.routing.decision import RoutingRequest
from balancer.routing.tracking import AttemptTracker
from balancer.telemetry.records import RequestRecord
from balancer.telemetry.trace import Call, to_line, understood
from edgeserve.errors import SettingsError, in_words
from edgeserve.runtime.files import OUT_OF_ORDER, RepeatedFault

log = logging.getLogger(__name__)

BEGINNING = b'{"id":'
"""How every line of a trace begins."""

LOOK_BYTES = 16 * 2**20
"""How much of an old trace is read, from its end."""

REMEMBERED = 4096
"""Conversations that the next request may continue."""


class Trace:
    """Writes one line per answered request, when it has ended.

    `began`: when the trace begins, by the clock of records. `count`: lines it has.
    """

    def __init__(
        self, file: FileIO, key: bytes, *, began: float, count: int, cut: bool = False
    ) -> None:
        self._file = file
        self._cut = cut
        self._fault = RepeatedFault(log.warning)
        self._key = key
        self._began = began
        self._count = count
        self._ended: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def answered(
        self, record: RequestRecord, routing: RoutingRequest, ended: float
    ) -> None:
        """Write a request's line, where enough is known of it."""
        send = record.attempts[-1].send if record.attempts else None
        if not isinstance(send, AttemptTracker) or send.timings is None:
            return
        timings, prompt = send.timings, routing.prompt
        after, at = self._place(routing, record.arrived)
        call = Call(
            id=self._count,
            at=at,
            after=after,
            client=self._pseudonym(routing.client),
            session=self._pseudonym(routing.session),
            model=send.model,
            prompt=prompt,
            prompt_tokens=timings.cached + timings.prompt,
            answer_tokens=timings.predicted,
            budget=routing.budget,
        )
        self.append(to_line(call))
        if prompt.blocks:
            self._ended[prompt.blocks[-1]] = self._count, ended
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        self._count += 1

    def append(self, line: bytes) -> None:
        """Append a line; a line that was cut before gets its line end first."""
        whole = b"\n" + line if self._cut else line
        try:
            written = self._file.write(whole)
        except OSError as error:
            self._fault.report(f"cannot write to the trace: {in_words(error)}")
            return
        self._cut = written != len(whole)
        if self._cut:
            self._fault.report("cannot write to the trace: the disk takes no more")
        else:
            self._fault.ended()

    def _place(
        self, routing: RoutingRequest, arrived: float
    ) -> tuple[int | None, float]:
        """Return the answer that it continues, if any, and the seconds since that."""
        prompt = routing.prompt
        for count in prompt.messages[-2:-6:-1]:
            id_, ended = self._ended.get(prompt.blocks[count - 1], (None, 0.0))
            if id_ is not None and ended <= arrived:
                return id_, arrived - ended
        return None, max(0.0, arrived - self._began)

    def _pseudonym(self, name: str) -> str:
        if not name:
            return ""
        return blake2b(
            name.encode(errors="replace"), key=self._key, digest_size=6
        ).hexdigest()


@contextmanager
def tracing(path: Path, key: bytes, now: float) -> Generator[Trace | None]:
    """Write to a file for the length of the block; None where its disk is at fault.

    Raises SettingsError for what cannot or should not be written to.
    """
    try:
        found, file = _last(path), _appending(path)
    except OSError as error:
        if error.errno not in OUT_OF_ORDER:
            why = in_words(error)
            raise SettingsError(f"record is {str(path)!r}: {why}") from error
        log.warning("nothing is recorded in %s: %s", path, in_words(error))
        yield None
        return
    with file:
        began = now - found.latest
        yield Trace(file, key, began=began, count=found.count, cut=found.cut)


def _appending(path: Path) -> FileIO:
    # A pipe without a reader is an error; otherwise opening it would block.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
    return FileIO(os.open(path, flags, 0o666), "a")


@dataclass(frozen=True)
class _Last:
    """How a trace ends: the latest time, the next id, whether the last line is cut."""

    latest: float = 0.0
    count: int = 0
    cut: bool = False


def _last(path: Path) -> _Last:
    """Look at the end of a trace. Raises OSError, and SettingsError for no trace."""
    if path.exists() and not path.is_file():
        return _Last()
    try:
        with path.open("rb") as file:
            head = file.read(LOOK_BYTES).lstrip(b"\0\r\n")
            size = file.seek(0, SEEK_END)
            file.seek(max(0, size - LOOK_BYTES))
            tail = file.read(LOOK_BYTES)
    except FileNotFoundError:
        return _Last()
    calls = [call for call in map(understood, tail.splitlines()) if call]
    ours = head.startswith(BEGINNING) or BEGINNING.startswith(head)
    if not (calls or ours):
        raise SettingsError(f"record is {str(path)!r}: it is not a trace")
    return _Last(
        latest=max((call.at for call in calls), default=0.0),
        count=max((call.id + 1 for call in calls), default=0),
        cut=bool(tail) and not tail.endswith(b"\n"),
    )
