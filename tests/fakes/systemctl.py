"""A systemctl that runs the commands of units as processes, without systemd.

It reads ExecStart= and Environment= of the units in $FAKE_UNITS, notes each call and
the processes in $FAKE_SYSTEMD, and confines nothing. It does not restart what ends.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

UNITS, NOTES = Path(os.environ["FAKE_UNITS"]), Path(os.environ["FAKE_SYSTEMD"])
STOP_SECONDS = 30.0


def main() -> int:
    """Do what one call asks for; returns the exit status."""
    with (NOTES / "calls").open("a") as calls:
        print(shlex.join(sys.argv[1:]), file=calls)
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    verb, names = words[0], [word.removesuffix(".service") for word in words[1:]]
    missing = [name for name in names if not unit(name).exists()]
    if missing:
        print(f"Unit {missing[0]}.service not found.", file=sys.stderr)
        return 5
    for name in names:
        if verb == "restart":
            stop(name)
            start(name)
        elif verb == "disable":
            stop(name)
        elif verb == "show":
            show(name)
    return 0


def unit(name: str) -> Path:
    """Return the path of a unit."""
    return UNITS / f"{name}.service"


def start(name: str) -> None:
    """Run its command, with the environment that the unit gives it."""
    lines = unit(name).read_text().replace("%%", "%").splitlines()
    environ = {
        key: os.environ[key]
        for key in ("PATH", "HOME", "PYTHONPATH")
        if key in os.environ
    }
    command = list[str]()
    for line in lines:
        if found := re.match(r"Environment=(.+)", line):
            key, _, value = shlex.split(found[1])[0].partition("=")
            environ[key] = value
        elif found := re.match(r"ExecStart=(.+)", line):
            command = shlex.split(found[1])
    with (NOTES / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    (NOTES / f"{name}.pid").write_text(str(process.pid))


def stop(name: str) -> None:
    """End it: SIGTERM, and SIGKILL if that does not help."""
    pid = running(name)
    if not pid:
        return
    os.kill(pid, signal.SIGTERM)
    ends = time.monotonic() + STOP_SECONDS
    while running(name) and time.monotonic() < ends:
        time.sleep(0.05)
    if running(name):
        os.kill(pid, signal.SIGKILL)


def running(name: str) -> int:
    """Return its process id; 0 where it has ended."""
    try:
        pid = int((NOTES / f"{name}.pid").read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return 0
    return 0 if state == "Z" else pid


def show(name: str) -> None:
    """Print the properties that are asked for."""
    pid = running(name)
    print(f"ActiveState={'active' if pid else 'failed'}")
    print(f"SubState={'running' if pid else 'failed'}")
    print(f"MainPID={pid}\nNRestarts=0")
    print("ActiveEnterTimestamp=Sat 2026-11-28 12:00:00 UTC")


if __name__ == "__main__":
    sys.exit(main())
