"""Cascade: a small model's answer is held back until its probabilities are judged.

The engine is asked for log-probabilities, which are removed again for the client. Only
plain chats are judged: whether a tool is called or a schema is kept, probabilities do
not tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from edgeserve.http.types import ChangedResponse, Response
from edgeserve.json_edit import raw_fields
from edgeserve.wire import MALFORMED

ASKED: Mapping[str, object] = {"logprobs": True, "top_logprobs": 1}
"""What the small model's engine is asked for as well."""

ALONE = (
    "tools", "functions", "response_format", "json_schema", "grammar", "logprobs",
    "top_logprobs", "n_probs", "continue_final_message",
)  # fmt: skip
"""Fields of requests that go to the large model at once."""

EMPTY = (b"null", b"false", b"0", b"[]", b"{}", b'""')

LEAST = -20.0
"""The lowest log-probability that counts; engines write very low ones for zero."""

KEY = b'"logprobs"'


class Unsure(ConnectionError):
    """The small model is not sure enough; its engine is left as by a client that goes.

    The text says how unsure it is.
    """


def is_judged(body: bytes) -> bool:
    """Whether the answer to a chat of this body can be judged by probabilities."""
    fields = raw_fields(body)
    return all(bytes(fields.get(name) or b"null") in EMPTY for name in ALONE)


def without_logprobs(events: bytes) -> tuple[bytes, list[float]]:
    """Remove log-probabilities from whole events; return both."""
    found = list[float]()
    if KEY not in events:
        return events, found
    lines = events.split(b"\n")
    for place, line in enumerate(lines):
        if line.startswith(b"data: {") and KEY in line:
            lines[place] = b"data: " + stripped(line[6:], found)
    return b"\n".join(lines), found


def stripped(body: bytes, found: list[float]) -> bytes:
    """Remove log-probabilities from an object, and add them to `found`."""
    try:
        value = msgspec.json.decode(body, type=dict[str, Any])
    except MALFORMED:
        return body
    choices = value.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            found += _of(cast("dict[str, Any]", choice).pop("logprobs", None))
    return msgspec.json.encode(value)


def _of(logprobs: Any) -> list[float]:
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    values = [
        cast("dict[str, Any]", each).get("logprob")
        for each in (entries if isinstance(entries, list) else ())
        if isinstance(each, dict)
    ]
    return [max(LEAST, float(x)) for x in values if isinstance(x, int | float)]


def doubt(found: list[float], least: float) -> str:
    """Say how unsure a model is; an empty text if it is sure enough."""
    if not found:
        return "is unsure: its engine gave no probabilities"
    mean = sum(found) / len(found)
    if mean >= least:
        return ""
    return (
        f"is unsure: the mean log-probability of its first {len(found)} tokens is"
        f" {mean:.2f}, below {least:g}"
    )


class HeldResponse(ChangedResponse):
    """A client's response that is held back until `hold` tokens or its end.

    `judge` gets their log-probabilities, and raises Unsure to give the answer up. What
    was held is sent otherwise. `held` says whether the answer is one to be judged.
    """

    __slots__ = ("_found", "_head", "_held", "_hold", "_judge", "_pending")

    def __init__(
        self,
        reply: Response,
        hold: int,
        judge: Callable[[list[float]], None],
        held: Callable[[], bool],
    ) -> None:
        super().__init__(reply)
        self._hold = hold
        self._judge: Callable[[list[float]], None] | None = judge
        self._held = held
        self._head: tuple[int, Mapping[str, str]] | None = None
        self._pending: list[bytes] = []
        self._found: list[float] = []

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Keep the head; what another engine has begun is forgotten."""
        self._head = status, headers
        self._pending.clear()
        self._found.clear()

    async def write(self, data: bytes) -> None:
        """Hold a piece back, or pass it on; comments keep the client waiting."""
        if data.startswith(b":"):
            await self._begin()
            await self.reply.write(data)
            return
        clean, found = without_logprobs(data)
        if self._judge is None:
            await self.reply.write(clean)
            return
        self._pending.append(clean)
        self._found += found
        if len(self._found) >= self._hold or not self._held():
            await self._release()

    async def finish(self) -> None:
        """Judge a short answer, and end it."""
        await self._release()
        await self.reply.finish()

    async def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Judge a whole answer, and send it."""
        if status == 200:
            body = stripped(body, self._found)
            self._judged()
        await self.reply.send(status, headers, body)

    def _judged(self) -> None:
        judge, self._judge = self._judge, None
        if judge is not None and self._held():
            judge(self._found[: self._hold])

    async def _begin(self) -> None:
        if self._head is not None and not self.reply.started:
            await self.reply.start(*self._head)

    async def _release(self) -> None:
        self._judged()
        await self._begin()
        if self._pending:
            await self.reply.write(b"".join(self._pending))
            self._pending.clear()
