"""First tokens after a drain: conversations that are moved beside ones that are not.

    python -m tests.bench.caches.drain --conversations 20 --share 0.25

Real nodes with SmolLM2 on loopback. All conversations begin on one node. Then another
one joins, the first drains, and each conversation goes on, one after the other.
`--share` holds the engine of the node where they go on to that part of a core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from node.engines.process import free_port
from tests.bench.fleet.throttle import best
from tests.endpoint.caches.machines import (
    Conversation,
    Turn,
    balancer,
    got,
    node,
    until,
)

FIRST, THEN = "How many slots has machine 3?", "And machine 4?"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--conversations", type=int, default=20)
    asked.add_argument("--facts", type=int, default=24)
    asked.add_argument("--share", type=float, default=0.0)
    asked.add_argument("--out", type=Path)
    given = asked.parse_args()
    found: dict[str, Any] = {"given": {k: str(v) for k, v in vars(given).items()}}
    for name, disk in (("moved", "2048"), ("read anew", "0")):
        found[name] = _contest(given, disk)
        print(name, json.dumps(_figures(found[name])), flush=True)
    moved, anew = (_figures(found[each]) for each in ("moved", "read anew"))
    print(f"{anew['median'] / moved['median']:.1f} times sooner at the median")
    texts = [
        [each["text"] for each in found[n]["turns"]] for n in ("moved", "read anew")
    ]
    same = sum(left == right for left, right in zip(*texts, strict=True))
    print(f"{same} of {given.conversations} answers are the same")
    if given.out:
        given.out.write_text(json.dumps(found, indent=1))


def _contest(given: argparse.Namespace, disk: str) -> dict[str, Any]:
    count = given.conversations
    flags = (
        *("--engine", "bundled", "--slots", str(count), "--context", "1024"),
        *("--cache-disk-mib", disk, "--drain-seconds", "120"),
    )
    port = free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        old = stack.enter_context(node("old", folder, *flags))
        later = f"http://127.0.0.1:{port}"
        front = stack.enter_context(balancer(folder, old, later=later))
        talks = [Conversation(number, given.facts) for number in range(count)]
        first = [each.ask(front.url, FIRST) for each in talks]
        new = stack.enter_context(node("new", folder, *flags, port=port))
        until(lambda: _slots(front.url) == 2 * count, "the new node is known")
        if given.share:
            _, hold = best()
            stack.enter_context(hold(new.engine().pid, given.share))
        began = time.monotonic()
        old.drain()
        until(lambda: not got(f"{old.url}/health"), "it has ended", 150)
        drained = time.monotonic() - began
        turns = [each.ask(front.url, THEN) for each in talks]
    return {
        "drained": drained,
        "first": [_shown(each) for each in first],
        "turns": [_shown(each) for each in turns],
    }


def _slots(url: str) -> int:
    nodes = got(f"{url}/edgeserve/v1/nodes") or ()
    reports = [each.get("report") or each for each in nodes]
    engines = [engine for each in reports for engine in each.get("engines", ())]
    return sum(each["slots"] for each in engines if each["state"] == "ready")


def _shown(turn: Turn) -> dict[str, Any]:
    return {
        "text": turn.text,
        "seconds": round(turn.first, 3),
        "cached": turn.cached,
        "node": turn.node,
    }


def _figures(contest: dict[str, Any]) -> dict[str, Any]:
    seconds = sorted(each["seconds"] for each in contest["turns"])
    return {
        "median": round(statistics.median(seconds), 3),
        "p95": seconds[int(0.95 * (len(seconds) - 1))],
        "most": seconds[-1],
        "cached": sum(each["cached"] > 100 for each in contest["turns"]),
        "drain seconds": round(contest["drained"], 2),
    }


if __name__ == "__main__":
    main()
