"""A node's id: random, kept in the state folder, never shared by two machines.

The id lives beside a description of the machine it was made on. Restarts, new
addresses, a new operating system release and a swapped USB adapter leave it alone.
A state folder that wakes up on another machine, as on a cloned SD card, gets a new id.

The firmware's serial number decides where it can be read: always on a Raspberry Pi,
elsewhere only by root. Otherwise any built-in network adapter seen before is proof
enough, and where there is none either (containers, most virtual machines), the
operating system's machine id. Not caught here: a virtual machine or container cloned
with its machine id, which `node.twins` catches by mDNS.
"""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from edgeserve.errors import SettingsError
from node.machine import Machine, merged, same

FILE = "node.json"
LOCK = "node.lock"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds."""

    id: str
    machine: Machine


class Identity:
    """The node's id for the length of a run; `renew` replaces it for good."""

    def __init__(self, path: Path, machine: Machine) -> None:
        self._path = path
        kept = _read(path)
        if kept is not None and same(kept.machine, machine):
            self.id = kept.id
            self._machine = merged(kept.machine, machine)
        else:
            self.id = _new_id()
            self._machine = machine
        self._keep()

    def renew(self) -> None:
        """Take a new id: another machine answers to this one."""
        self.id = _new_id()
        self._keep()

    def _keep(self) -> None:
        """Write beside and rename: a power cut leaves the old file or the new one."""
        beside = self._path.with_suffix(".new")
        kept = Kept(id=self.id, machine=self._machine)
        beside.write_bytes(msgspec.json.encode(kept))
        beside.replace(self._path)


@contextmanager
def identified(state_dir: Path, machine: Machine) -> Generator[Identity]:
    """Hold the state folder and the identity in it for the length of the block.

    Raises SettingsError where the folder cannot be written, or another node holds it.
    """
    with _locked(state_dir):
        yield Identity(state_dir / FILE, machine)


@contextmanager
def _locked(state_dir: Path) -> Generator[None]:
    """Hold the folder's lock; the kernel lets go of it however this process ends."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = (state_dir / LOCK).open("w")
    except OSError as error:
        raise SettingsError(
            f"cannot keep state in {state_dir}: {error.strerror}; choose another"
            " folder with --state-dir"
        ) from error
    with lock:
        _take(lock, state_dir)
        yield


def _take(lock: IO[str], state_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SettingsError(
            f"another node keeps its state in {state_dir}; stop that one first, or give"
            " this one another folder by --state-dir or EDGESERVE_STATE_DIR"
        ) from error


def _read(path: Path) -> Kept | None:
    """Read what was kept; a file that is damaged counts as none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _new_id() -> str:
    return secrets.token_hex(16)
