import select
import signal
import subprocess
import sys

import pytest

from edgeserve.runtime.tether import tethered
from tests.patience import PATIENCE

linux = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")

PARENT = """
import subprocess, sys
from edgeserve.runtime.tether import tethered
child = subprocess.Popen(tethered([sys.executable, "-c", sys.argv[1]]))
child.wait()
"""

CHILD = """
import os, time
print(os.getpid(), flush=True)
time.sleep(400)
"""


def test_the_program_takes_the_place_of_the_tether() -> None:
    program = [sys.executable, "-c", "import os, sys; print(os.getpid(), sys.argv[1])"]

    started = subprocess.Popen(
        tethered([*program, "--"]), stdout=subprocess.PIPE, text=True
    )
    said, _ = started.communicate(timeout=PATIENCE)

    assert said.split() == [str(started.pid), "--"]


@linux
def test_a_program_does_not_outlive_a_parent_killed_outright() -> None:
    # The pipe ends when nobody holds its other end: parent and child are gone.
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, bufsize=0
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().strip().isdigit()

        parent.send_signal(signal.SIGKILL)

        assert select.select([parent.stdout], [], [], PATIENCE)[0]
        assert parent.stdout.read() == b""


@linux
def test_nothing_is_started_for_a_parent_that_is_already_gone() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(timeout=PATIENCE)
    command = [
        sys.executable,
        "-m",
        "edgeserve.runtime.tether",
        "SIGKILL",
        str(gone.pid),
    ]

    done = subprocess.run([*command, "--", "echo", "started"], capture_output=True)

    assert (done.returncode, done.stdout) == (1, b"")
