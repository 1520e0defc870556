"""Node identity: a random id, tied to the machine on which it was made.

The id lives beside a description of the machine it was made on. Restarts, new
addresses, a new operating system release and a swapped USB adapter leave it alone.
A state folder that wakes up on another machine, as on a cloned SD card, gets a new id.

The firmware's serial number decides where it can be read: always on a Raspberry Pi,
elsewhere only by root. Otherwise any built-in network adapter seen before is proof
enough, and where there is none either (containers, most virtual machines), the
operating system's machine id. Not caught here: a virtual machine or container cloned
with its machine id, which `node.discovery.duplicates` catches by mDNS.
"""

from __future__ import annotations

import fcntl
import logging
import secrets
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

import msgspec

from edgeserve.errors import SettingsError, in_words
from edgeserve.runtime.files import OUT_OF_ORDER, open_lock, read_json, replace_file
from node.hardware.readings import entries

log = logging.getLogger(__name__)

SERIALS = (
    "sys/firmware/devicetree/base/serial-number",
    "sys/class/dmi/id/product_uuid",
    "sys/class/dmi/id/board_serial",
)
"""Firmware's own numbers; the DMI ones are for root's eyes only."""

PLACEHOLDERS = frozenset(
    ("", "none", "default string", "to be filled by o.e.m.", "not specified",
     "0123456789", "03000200-0400-0500-0006-000700080009")
)  # fmt: skip
"""What careless makers put where a serial number belongs."""

LOCALLY_ADMINISTERED = 0x02


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Serial numbers, addresses of built-in network adapters, and the machine id."""

    serials: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    machine_id: str = ""


def same(then: Machine, now: Machine) -> bool:
    """Whether two descriptions are of one machine; the strongest shared evidence wins.

    Root reads serial numbers that others cannot, so one side may know more.
    """
    if then.serials and now.serials:
        return bool(set(then.serials) & set(now.serials))
    if then.adapters and now.adapters:
        return bool(set(then.adapters) & set(now.adapters))
    return then.machine_id == now.machine_id


def merged(then: Machine, now: Machine) -> Machine:
    """Describe one machine by what is known now, and what was known before."""
    return Machine(
        serials=now.serials or then.serials,
        adapters=now.adapters or then.adapters,
        machine_id=now.machine_id or then.machine_id,
    )


def this_machine(root: Path = Path("/")) -> Machine:
    """Describe the machine whose file system begins at `root`."""
    serials = (_text(root / place) for place in SERIALS)
    nets = entries(root / "sys/class/net")
    return Machine(
        serials=tuple(each for each in serials if _is_serial(each)),
        adapters=tuple(sorted(filter(None, map(_built_in, nets)))),
        machine_id=_text(root / "etc/machine-id"),
    )


def _is_serial(text: str) -> bool:
    return text.lower() not in PLACEHOLDERS and bool(text.strip("0-fF"))


def _built_in(net: Path) -> str | None:
    """Return an adapter's own address, unless it is virtual, random or on USB."""
    try:
        device = (net / "device").resolve(strict=True)
    except (OSError, RuntimeError):  # none, or gone since it was listed
        return None
    if "/usb" in str(device):
        return None
    address = _text(net / "address")
    try:
        own = not int(address[:2], 16) & LOCALLY_ADMINISTERED
    except ValueError:
        return None
    return address if own and address.strip("0:") else None


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip("\0 \n")
    except OSError:
        return ""


FILE = "node.json"
LOCK = "node.lock"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds."""

    id: str
    machine: Machine


class Identity:
    """The node's id for the length of a run; `renew` replaces it for good.

    An id that cannot be written down lasts as long as the process.
    """

    def __init__(self, path: Path, machine: Machine) -> None:
        self._path = path
        self._kept = _read(path)
        if self._kept is not None and same(self._kept.machine, machine):
            self.id = self._kept.id
            self._machine = merged(self._kept.machine, machine)
        else:
            if self._kept is not None:
                log.warning("%s is of another machine: this node gets a new id", path)
            self.id = _new_id()
            self._machine = machine
        self._keep()

    def renew(self) -> None:
        """Take a new id: another machine answers to this one."""
        self.id = _new_id()
        self._keep()

    def _keep(self) -> None:
        kept = Kept(id=self.id, machine=self._machine)
        if kept == self._kept:
            return
        try:
            replace_file(self._path, msgspec.json.encode(kept))
        except OSError as error:
            log.warning(
                "cannot write %s: %s; at its next start this node may be a new one to"
                " balancers",
                *(self._path, in_words(error)),
            )
        else:
            self._kept = kept


@contextmanager
def identified(state_dir: Path, machine: Machine) -> Generator[Identity]:
    """Hold the state folder and the identity in it for the length of the block.

    Raises SettingsError where the folder cannot be used, or another node holds it. A
    disk that is full or read-only is no reason not to serve.
    """
    with _locked(state_dir):
        yield Identity(state_dir / FILE, machine)


@contextmanager
def _locked(state_dir: Path) -> Generator[None]:
    """Hold the folder's lock; the kernel lets go of it however this process ends."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock: IO[bytes] | None = open_lock(state_dir / LOCK)
    except OSError as error:
        if error.errno not in OUT_OF_ORDER:
            raise SettingsError(
                f"cannot keep state in {state_dir}: {error.strerror}; choose another"
                " folder with --state-dir"
            ) from error
        log.warning("nothing is kept in %s: %s", state_dir, in_words(error))
        lock = None
    with lock or nullcontext():
        if lock:
            _take(lock, state_dir)
        yield


def _take(lock: IO[bytes], state_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SettingsError(
            f"another node keeps its state in {state_dir}; stop that one first, or give"
            " this one another folder by --state-dir or EDGESERVE_STATE_DIR"
        ) from error


def _read(path: Path) -> Kept | None:
    """Read what was kept; a file that is damaged counts as none, and that is said."""
    try:
        return read_json(path, Kept)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning(
            "%s is of no use (%s): this node gets a new id, and balancers take it for"
            " a new node",
            *(path, in_words(error)),
        )
        return None


def _new_id() -> str:
    return secrets.token_hex(16)
