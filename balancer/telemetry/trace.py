"""Traces: files of requests with their times, sizes and hashes, no content."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from balancer.dialects.prompt import EMPTY, Prompt
from edgeserve.errors import CommandError, SettingsError, in_words
from edgeserve.runtime.files import read_bytes

log = logging.getLogger(__name__)

MOST_BYTES = 2**30
"""The longest trace that is replayed: some months of a busy fleet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request with its true lengths; a balancer knows less of it.

    It arrives at `at` seconds; where it continues an earlier call (`after`), so long
    after the end of that one. `reply`: the answer as the client sends it back later.
    """

    id: int
    at: float
    after: int | None = None
    client: str = ""
    session: str = ""
    model: str = "model"
    prompt: Prompt
    prompt_tokens: int
    answer_tokens: int
    budget: int | None = None
    reply: Prompt = EMPTY


LEAST_RATIO, MOST_RATIO = 0.15, 0.35
"""Tokens a byte: prose in Latin script, and code with many signs."""


def ratio_of(block: bytes) -> float:
    """Return a block's tokens a byte; its hash decides, so that they never change."""
    share = int.from_bytes(block[:2], "big") / 0xFFFF
    return LEAST_RATIO + (MOST_RATIO - LEAST_RATIO) * share


def marks(prompt: Prompt, before: int = 0) -> list[float]:
    """Return the true tokens up to the end of each block, but for a common factor."""
    found: list[float] = []
    total, start = 0.0, before
    for block, end in zip(prompt.blocks, prompt.ends, strict=True):
        total += ratio_of(block) * (end - start)
        start = end
        found.append(total)
    return found


class TraceLine(msgspec.Struct, omit_defaults=True):
    """One line of a trace file. `blocks` are hex digits, 16 to a block."""

    id: int
    at: float
    tokens: int
    answer: int
    blocks: str
    ends: list[int]
    messages: list[int]
    after: int | None = None
    client: str = ""
    session: str = ""
    model: str = "model"
    budget: int | None = None


def to_line(call: Call) -> bytes:
    """Encode a call as a line of JSON, with its line end."""
    line = TraceLine(
        id=call.id,
        at=round(call.at, 4),
        tokens=call.prompt_tokens,
        answer=call.answer_tokens,
        blocks=b"".join(call.prompt.blocks).hex(),
        ends=list(call.prompt.ends),
        messages=list(call.prompt.messages),
        after=call.after,
        client=call.client,
        session=call.session,
        model=call.model,
        budget=call.budget,
    )
    return msgspec.json.encode(line) + b"\n"


def from_line(line: TraceLine) -> Call:
    """Return the call of a line; `with_replies` finds its reply from later calls."""
    raw = bytes.fromhex(line.blocks)
    blocks = tuple(raw[i : i + 8] for i in range(0, len(raw), 8))
    if len(blocks) != len(line.ends):
        raise ValueError(f"call {line.id}: {len(blocks)} blocks, {len(line.ends)} ends")
    if line.at < 0 or not all(0 < each <= len(blocks) for each in line.messages):
        raise ValueError(f"call {line.id}: a time or a message out of range")
    return Call(
        id=line.id,
        at=line.at,
        after=line.after,
        client=line.client,
        session=line.session,
        model=line.model,
        prompt=Prompt(blocks, tuple(line.ends), tuple(line.messages)),
        prompt_tokens=line.tokens,
        answer_tokens=line.answer,
        budget=line.budget,
    )


def save(path: Path, calls: Iterable[Call]) -> None:
    """Write a trace file. Raises CommandError where it cannot be written."""
    try:
        with path.open("wb") as file:
            file.writelines(map(to_line, calls))
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error


def load(path: Path) -> list[Call]:
    """Read a trace file and work out which call continues which.

    Lines that a crash or a full disk has damaged are left out.
    """
    try:
        lines = read_bytes(path, MOST_BYTES).splitlines()
    except OSError as error:
        raise SettingsError(f"cannot read trace {path}: {in_words(error)}") from error
    calls = [call for call in map(understood, lines) if call]
    damaged = len(lines) - len(calls)
    if not calls:
        why = "is not a trace" if damaged else "holds no request"
        raise SettingsError(f"{path} {why}")
    if damaged:
        log.warning("%s: left out what is damaged, lines: %d", path, damaged)
    return with_replies(_numbered(calls))


def understood(line: bytes) -> Call | None:
    """Read one line; None where it is damaged."""
    try:
        return from_line(msgspec.json.decode(line, type=TraceLine))
    except (ValueError, RecursionError):  # as DecodeError and UnicodeDecodeError are
        return None


def _numbered(calls: Iterable[Call]) -> Iterator[Call]:
    """Number calls anew: two balancers that write one trace use the same numbers.

    A call whose predecessor is missing comes when the one before it came.
    """
    numbers = dict[int, int]()
    latest = 0.0
    for number, call in enumerate(calls):
        after = None if call.after is None else numbers.get(call.after)
        if call.after is None:
            latest = call.at
        at = call.at if call.after == after or after is not None else latest
        numbers[call.id] = number
        yield replace(call, id=number, after=after, at=at)


def with_replies(calls: Iterable[Call]) -> list[Call]:
    """Find in later prompts how clients sent each answer back."""
    found = list(calls)
    by_end = {
        call.prompt.blocks[-1]: i for i, call in enumerate(found) if call.prompt.blocks
    }
    for call in tuple(found):
        prompt = call.prompt
        for message, count in enumerate(prompt.messages[:-1]):
            asked = by_end.get(prompt.blocks[count - 1])
            if asked is None or found[asked].reply.blocks:
                continue
            until = prompt.messages[message + 1]
            reply = Prompt(
                prompt.blocks[count:until], prompt.ends[count:until], (until - count,)
            )
            found[asked] = replace(found[asked], reply=reply)
    return found
