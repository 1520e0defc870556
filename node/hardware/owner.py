"""Owner's use: whether a person is at this machine, or other programs work on it.

A machine in use must not be sent to sleep. What cannot be read counts as use: better
awake for nothing than gone under a person's hands.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgeserve.reports.hardware import Hardware
from node.hardware.gpus import program_output

IDLE_SECONDS = 900.0
"""So long after the last key a person may still be there."""

LOAD = 0.15
"""The share of the processor that other programs may take while it counts as idle."""

SECONDS = 5.0

LISTED = ("loginctl", "list-sessions", "--no-legend")
SHOWN = ("loginctl", "show-session", "--property=Class,Name,Type,State,TTY,"
         "IdleHint,IdleSinceHint")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Session:
    """A person who is logged in. `idle` seconds; None where nothing tells."""

    name: str
    at: str
    idle: float | None


def in_use(hardware: Hardware, *, working: bool, root: Path = Path("/")) -> str:
    """Say what this machine is in use for, "" where nothing is.

    `working`: its engines work, so that its load says nothing of others.
    """
    person = attended(sessions(root))
    return person or ("" if working else loaded(hardware))


def attended(sessions: Iterable[Session]) -> str:
    """Say who uses the machine; "" where no person does. Pure."""
    for each in sessions:
        if each.idle is None:
            return f"{each.name} is logged in at {each.at}, which tells no idle time"
        if each.idle < IDLE_SECONDS:
            return f"{each.name} used {each.at} {each.idle:.0f} s ago"
    return ""


def loaded(hardware: Hardware) -> str:
    """Say that other programs work; "" where they do not. Pure."""
    load = hardware.cpu.load
    if load <= LOAD:
        return ""
    return f"other programs use {load:.0%} of its processor"


def sessions(root: Path = Path("/")) -> list[Session]:
    """Return who is logged in, by the login manager, else by the terminals."""
    listed = _lines(LISTED) if (root / "run/systemd/system").is_dir() else []
    ids = [line.split()[0] for line in listed if line.split()]
    if ids:
        shown = program_output((*SHOWN, *ids), SECONDS)
        return list(parse_sessions(shown, time.time(), root))
    return [
        Session(
            name=each.name or "a person",
            at=each.terminal or "a screen",
            idle=_terminal_idle(root, each.terminal or "", time.time()),
        )
        for each in psutil.users()
    ]


def _lines(argv: tuple[str, ...]) -> list[str]:
    return program_output(argv, SECONDS).splitlines()


def parse_sessions(shown: str, now: float, root: Path) -> Iterator[Session]:
    """Yield the sessions of people that `loginctl show-session` shows."""
    for block in shown.split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if fields.get("Class") != "user" or fields.get("State") == "closing":
            continue
        tty = fields.get("TTY", "")
        yield Session(
            name=fields.get("Name") or "a person",
            at=tty or fields.get("Type") or "a session",
            idle=_session_idle(fields, now, root),
        )


def _session_idle(fields: Mapping[str, str], now: float, root: Path) -> float | None:
    """Return for how long it has been idle: graphical ones say so themselves."""
    since = fields.get("IdleSinceHint", "0")
    if fields.get("IdleHint") == "yes" and since.isdecimal() and int(since):
        return max(0.0, now - int(since) / 1e6)
    if fields.get("Type") == "tty":
        return _terminal_idle(root, fields.get("TTY", ""), now)
    return 0.0


def _terminal_idle(root: Path, terminal: str, now: float) -> float | None:
    """Return how long ago a person typed there: the time of the terminal's file."""
    if not terminal or ".." in terminal:
        return None
    try:
        return max(0.0, now - (root / "dev" / terminal).stat().st_atime)
    except OSError:
        return None
