"""A command that goes on after the event loop has ended is stopped by Ctrl-C again."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.patience import PATIENCE

COMMAND = """
import asyncio, os, signal
from edgeserve.runtime.lifecycle import run

async def serve(stop: asyncio.Event) -> None:
    os.kill(os.getpid(), signal.{inside})
    await stop.wait()

print("served", run(serve), flush=True)
os.kill(os.getpid(), signal.{after})
while True:
    pass
"""


@pytest.mark.parametrize(
    ("name", "status"), [("SIGINT", -signal.SIGINT), ("SIGTERM", -signal.SIGTERM)]
)
def test_a_signal_stops_the_loop_and_another_one_the_command(
    name: str, status: int
) -> None:
    program = COMMAND.format(inside=name, after=name)

    ended = subprocess.run(
        [sys.executable, "-c", program],
        timeout=PATIENCE,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.stdout == "served 0\n"
    assert ended.returncode == status
