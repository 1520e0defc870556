"""Terminal: one command on a machine, as someone who sits before it sees it.

What asks whether to go on is answered with yes.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from tests.fleet.network import Host
from tests.patience import PATIENCE

ROWS, COLUMNS = 60, 200
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
QUESTION = "[y/N]: "


class Terminal:
    """A command that runs, and what it has shown so far."""

    def __init__(
        self, host: Host, script: str, env: Mapping[str, str], home: Path
    ) -> None:
        self.script = script
        self._raw = bytearray()
        self._changed = threading.Condition()
        self._closed = False
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(
            theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0)
        )
        named = f'hostname {host.name} && exec bash -euo pipefail -c "$0"'
        argv = ["unshare", "--uts", "bash", "-c", named, script]
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", host.namespace, *argv],
            env=env,
            cwd=home,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """What it has shown so far, without colours."""
        return ESCAPES.sub("", self._raw.decode(errors="replace"))

    def shows(self, wanted: Callable[[str], bool]) -> bool:
        """Wait until it shows something, ends, or nothing comes; say whether it did."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or wanted(self.text), PATIENCE)
        return wanted(self.text)

    def ended(self) -> int:
        """Wait for its end; return its exit status."""
        status = self._process.wait(PATIENCE)
        with self._changed:
            self._changed.wait_for(lambda: self._closed, PATIENCE)
        return status

    def close(self) -> None:
        """Close the window; the machine ends what runs in it."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        os.close(self._ours)

    def _read(self) -> None:
        """Read until no process has the terminal; then reading fails."""
        with suppress(OSError):
            while said := os.read(self._ours, 1 << 16):
                with self._changed:
                    self._raw += said
                    self._changed.notify_all()
                if self.text.endswith(QUESTION):
                    os.write(self._ours, b"y\n")
        with self._changed:
            self._closed = True
            self._changed.notify_all()
