"""Log of a node: the lines that it keeps, and what a balancer is told of them. Pure."""

from __future__ import annotations

import msgspec

LOG = "/edgeserve/v1/log"
"""Path of the node's route; `?after=` takes `next` of an earlier answer."""


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `at`: seconds since 1970 by the node's clock; `source`: its module."""

    at: float
    level: str
    source: str
    text: str


class NodeLog(msgspec.Struct, frozen=True, kw_only=True):
    """The lines since an earlier answer, the oldest first.

    `dropped` came since then, too, and are no longer kept.
    """

    next: str
    lines: tuple[LogLine, ...] = ()
    dropped: int = 0


def since(after: str, instance: str, kept: tuple[LogLine, ...], logged: int) -> NodeLog:
    """Return what came after an earlier answer; all, after one of another process.

    `logged` is how many lines `instance` has logged in all, of which it has `kept` the
    latest.
    """
    process, _, number = after.rpartition("-")
    # More digits than a count has would take long to read.
    ours = process == instance and number.isascii() and number.isdecimal()
    seen = int(number) if ours and len(number) < 16 else 0
    new = max(0, logged - seen)
    lines = kept[max(0, len(kept) - new) :]
    return NodeLog(next=f"{instance}-{logged}", lines=lines, dropped=new - len(lines))
