"""How groups are shown beside other engines: their members, and what workers give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

GIB = 2**30

Json = Mapping[str, Any]


def members_text(engine: Json) -> str:
    """Name the members of a group with their shares; "" where there is none yet."""
    members = () if engine["state"] == "absent" else engine.get("group") or ()
    parts = ", ".join(map(_member, members))
    return f"; a group: {parts}" if parts else ""


def _member(member: Json) -> str:
    text = f"{member['name']} {100 * member['share']:.0f} %"
    return text if member["state"] == "up" else f"{text} ({member['state']})"


def worker_lines(report: Json) -> Iterator[str]:
    """Yield a line for each group of another node that a node computes for."""
    for each in report.get("workers", ()):
        gib = each["memory"] / GIB
        yield f"computes for a group of {each['variant']}: {gib:.1f} GiB"
