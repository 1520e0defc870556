"""Writes down what was asked, without content, for `edgeserve simulate --trace`.

Sizes, times and keyed hashes: the key dies with this process, so that nobody can look
for known texts in a trace. A file that exists is continued.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import blake2b
from io import BufferedWriter
from pathlib import Path

from balancer.followed import Followed
from balancer.record import Record
from balancer.schedule import Need
from balancer.simulate.trace import Call, load, to_line
from edgeserve.errors import CommandError, SettingsError, in_words

REMEMBERED = 4096
"""Conversations that the next request may continue."""


class Trace:
    """Writes one line per answered request, when it has ended.

    `began` is when the trace begins, by the clock of records; `count` lines are there.
    """

    def __init__(
        self, file: BufferedWriter, key: bytes, *, began: float, count: int
    ) -> None:
        self._file = file
        self._key = key
        self._began = began
        self._count = count
        self._ended: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def answered(self, record: Record, need: Need, ended: float) -> None:
        """Write a request down, where enough is known of it."""
        course = record.attempts[-1].course if record.attempts else None
        if not isinstance(course, Followed) or course.timings is None:
            return
        timings, prompt = course.timings, need.prompt
        after, at = self._place(need, record.arrived)
        call = Call(
            id=self._count,
            at=at,
            after=after,
            client=self._pseudonym(need.client),
            session=self._pseudonym(need.session),
            model=course.model,
            prompt=prompt,
            prompt_tokens=timings.cached + timings.prompt,
            answer_tokens=timings.predicted,
            budget=need.budget,
        )
        self._file.write(to_line(call))
        self._file.flush()
        if prompt.blocks:
            self._ended[prompt.blocks[-1]] = self._count, ended
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        self._count += 1

    def _place(self, need: Need, arrived: float) -> tuple[int | None, float]:
        """When it came: after which answer it continues, or since the trace began."""
        prompt = need.prompt
        for count in prompt.messages[-2:-6:-1]:
            id_, ended = self._ended.get(prompt.blocks[count - 1], (None, 0.0))
            if id_ is not None and ended <= arrived:
                return id_, arrived - ended
        return None, max(0.0, arrived - self._began)

    def _pseudonym(self, name: str) -> str:
        if not name:
            return ""
        return blake2b(name.encode(), key=self._key, digest_size=6).hexdigest()


@contextmanager
def tracing(path: Path, key: bytes, now: float) -> Generator[Trace]:
    """Write to a file for the length of the block. Raises SettingsError."""
    calls, file = _opened(path)
    before = max((call.at for call in calls), default=0.0)
    count = max((call.id + 1 for call in calls), default=0)
    with file:
        yield Trace(file, key, began=now - before, count=count)


def _opened(path: Path) -> tuple[list[Call], BufferedWriter]:
    try:
        calls = load(path) if path.exists() else []
        return calls, path.open("ab")
    except CommandError as error:
        raise SettingsError(f"record is {str(path)!r}: {error}") from error
    except OSError as error:
        why = in_words(error)
        raise SettingsError(f"record is {str(path)!r}: {why}") from error
