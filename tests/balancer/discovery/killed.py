"""Revoke nodes in many processes, each killed at a moment of its own; print the losses.

A process of its own: it forks, which the one that runs the tests must not.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path

from balancer.discovery.revocations import Revocations


async def revoke_all(folder: Path, acknowledged: int) -> None:
    """Revoke nodes for ever; each is written to the pipe once that is acknowledged."""
    revocations = Revocations(folder)
    for number in range(1_000_000):
        await revocations.revoke(f"{os.getpid()}-{number}", "pi")
        os.write(acknowledged, f"{os.getpid()}-{number}\n".encode())


def killed(folder: Path, seconds: float) -> set[str]:
    """Run one of them and kill it; return what was acknowledged."""
    mine, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(mine)
        asyncio.run(revoke_all(folder, theirs))
    os.close(theirs)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(mine) as pipe:
        return set(pipe.read().split())


def main(folder: Path, moments: int) -> None:
    """Kill so many; print how many were acknowledged, and what is lost."""
    every: set[str] = set()
    lost: set[str] = set()
    for _ in range(moments):
        every |= killed(folder, random.uniform(0.005, 0.06))  # noqa: S311 - no secret
        lost |= every - Revocations(folder).nodes().keys()
    print(len(every), *lost)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
