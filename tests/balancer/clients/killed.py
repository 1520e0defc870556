"""Kill writers of `clients.db` at random moments, and look for what they acknowledged.

Each writer adds keys, changes and revokes them and adds usage; it writes one byte to a
pipe after each. With the bytes, the one that kills it knows what has to be in the file;
one more change may be there that was not acknowledged yet.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path

from balancer.clients.keys import ClientKey
from balancer.clients.store import (
    UsageCounts,
    add_key,
    add_usage,
    all_keys,
    change_key,
    revoke_key,
    store_in,
    usage_since,
)

LONGEST_SECONDS = 0.04
"""A write takes a few milliseconds; the first one makes the file."""


def write(path: Path, writer: int, acknowledge: int) -> None:
    """Make changes until the end comes; step n of each is known by its number."""
    step = 0
    while True:
        change(path, writer, step)
        os.write(acknowledge, b".")
        step += 1


def change(path: Path, writer: int, step: int) -> None:
    name = f"{writer}-{step // 4}"
    match step % 4:
        case 0:
            add_key(path, ClientKey(id=name, name=name, created=float(step)))
        case 1:
            change_key(path, name, {"at_once": step})
        case 2:
            add_usage(
                path, {(str(writer), "small", "2026-11-28"): UsageCounts(1, 2, 3, 4)}
            )
        case _:
            revoke_key(path, name, float(step))


def expected(writer: int, steps: int) -> tuple[set[tuple[str, int, float | None]], int]:
    """Return the writer's keys after so many steps, and its requests in the usage."""
    keys = set[tuple[str, int, float | None]]()
    for number in range((steps + 3) // 4):
        first = 4 * number
        changed = first + 1 if steps > first + 1 else 0
        revoked = float(first + 3) if steps > first + 3 else None
        keys.add((f"{writer}-{number}", changed, revoked))
    return keys, (steps + 1) // 4


def found(path: Path, writer: int) -> tuple[set[tuple[str, int, float | None]], int]:
    """Return the same, as it is in the file."""
    if not path.exists():
        return set(), 0
    keys = {
        (key.id, key.at_once, key.revoked)
        for key in all_keys(path)
        if key.name.startswith(f"{writer}-")
    }
    used = dict(usage_since(path, "2026-11-28"))
    counts = used.get((str(writer), "small", "2026-11-28"), UsageCounts())
    return keys, counts.requests


def killed(path: Path, writer: int) -> int:
    """Let one writer begin, and kill it; return what it acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        write(path, writer, writing)
    os.close(writing)
    time.sleep(random.uniform(0, LONGEST_SECONDS))  # noqa: S311 - a moment, no secret
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        return len(pipe.read())


def main(folder: Path, moments: int) -> None:
    """Kill so many writers, one after the other, most of them on one file."""
    total = 0
    for moment in range(moments):
        # Some begin without a file, to be killed while they make it.
        path = store_in(folder / (f"new-{moment}" if moment % 4 == 0 else "one"))
        steps = killed(path, moment)
        total += steps
        there = found(path, moment)
        if there not in [expected(moment, n) for n in (steps, steps + 1)]:
            sys.exit(f"after {steps} steps of {moment}: {there}")
    with sqlite3.connect(store_in(folder / "one")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    print(f"killed {moments} times, {total} changes acknowledged")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
