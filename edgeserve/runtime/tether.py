"""Tether: runs a program that ends when its parent process does.

`python -m edgeserve.runtime.tether [SIGNAL PARENT] -- PROGRAM ARGUMENT…` becomes
PROGRAM, with the same process id. On Linux the kernel sends it SIGNAL (SIGKILL by
default) when the process that started it dies, even by SIGKILL. Elsewhere it only
becomes PROGRAM.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1

PARENT = "EDGESERVE_PARENT"
"""Environment variable of the program: the process that it is tied to."""


def tethered(
    argv: Sequence[str], signal_: signal.Signals = signal.SIGKILL
) -> tuple[str, ...]:
    """Return the command that runs `argv` tied to the life of this process.

    The kernel watches the *thread* that starts the command: start it from one that
    lives as long as the process, such as the event loop's.
    """
    wrapper = (sys.executable, "-m", "edgeserve.runtime.tether")
    return (*wrapper, signal_.name, str(os.getpid()), "--", *argv)


def main() -> None:
    """Request the signal, check that the parent still lives, become the program."""
    split = sys.argv.index("--")
    options, argv = sys.argv[1:split], sys.argv[split + 1 :]
    name, parent = options or ("SIGKILL", str(os.getppid()))
    tie(int(parent), signal.Signals[name])
    os.environ[PARENT] = parent
    os.execvp(argv[0], argv)  # noqa: S606 - becoming the program is the point


def tie(parent: int, signal_: signal.Signals = signal.SIGKILL) -> None:
    """Tie this process to its parent; exit if that is already gone.

    Linux unties a process that becomes a program with capabilities or another user's
    rights. Such a program must tie itself again, to the process in `PARENT`.
    """
    if sys.platform == "linux":
        _request(signal_)
    # A parent that died before the request causes no signal.
    if os.getppid() != parent:
        sys.exit(1)


def _request(death_signal: signal.Signals) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, death_signal.value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


if __name__ == "__main__":
    main()
