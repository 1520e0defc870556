"""SIGKILL at a random moment of a write loses nothing that was acknowledged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.patience import PATIENCE

MOMENTS = int(os.environ.get("KILLS", "60"))
"""`make faults` takes 500."""


def test_a_killed_writer_loses_nothing_acknowledged(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.balancer.clients.killed", tmp_path, str(MOMENTS)],
        capture_output=True,
        text=True,
        timeout=PATIENCE + MOMENTS,
        cwd=Path(__file__).parents[3],
    )

    assert (done.stderr, done.returncode) == ("", 0)
    assert f"killed {MOMENTS} times" in done.stdout
