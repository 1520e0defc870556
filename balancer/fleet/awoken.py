"""Awoken nodes: what a node is known for until it has looked for its models. Pure.

A machine that was switched off starts a new process, which looks for its models first
and reports no engine for a moment. Requests that woke it must not be refused then.
"""

from __future__ import annotations

from msgspec import structs

from edgeserve.wire import NodeReport

LOOKING = "its machine woke up and looks for its models"


def awoken(before: NodeReport | None, now: NodeReport) -> NodeReport:
    """Return a report with the engines that it had before its machine slept.

    They count as loading, until it reports engines of its own, or why it has none.
    """
    if before is None or (now.sleep is not None and now.sleep.asleep):
        return now
    known = now.problems or now.available
    if any(each.reason == LOOKING for each in now.engines) and known:
        own = (each for each in now.engines if each.reason != LOOKING)
        return structs.replace(now, engines=tuple(own))
    if now.engines or known or before.sleep is None or not before.sleep.asleep:
        return now
    engines = tuple(
        structs.replace(each, state="loading", reason=LOOKING, busy=0, progress=None)
        for each in before.engines
    )
    return structs.replace(now, engines=engines)
