"""Node identity: an id, and the certificate that it is the fingerprint of.

The id is stored with a description of the machine on which it was made. Restarts, new
addresses, a new release of the operating system and another USB adapter do not change
it. A state folder that is used on another machine, as with a cloned SD card, gets a new
id and certificate.

The firmware's serial number decides where it can be read: always on a Raspberry Pi,
elsewhere only by root. Otherwise one known built-in network adapter is enough. Without
any (containers, most virtual machines), the operating system's machine id decides.
A virtual machine or container that was cloned with its machine id is not noticed here,
but by `node.discovery.duplicates`.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

import msgspec

from edgeserve.config.paths import refuse_closed
from edgeserve.errors import SettingsError, in_words
from edgeserve.runtime.files import OUT_OF_ORDER, open_lock, read_json, replace_file
from edgeserve.security.certificates import (
    Certificate,
    keep,
    new_certificate,
    server_context,
    stored_certificate,
)
from node.hardware.readings import entries, text

log = logging.getLogger(__name__)

SERIALS = (
    "sys/firmware/devicetree/base/serial-number",
    "sys/class/dmi/id/product_uuid",
    "sys/class/dmi/id/board_serial",
)
"""The firmware's serial numbers; only root may read those of DMI."""

PLACEHOLDERS = frozenset(
    ("", "none", "default string", "to be filled by o.e.m.", "not specified",
     "0123456789", "03000200-0400-0500-0006-000700080009")
)  # fmt: skip
"""Texts that some makers store in place of a serial number."""

LOCALLY_ADMINISTERED = 0x02


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Serial numbers, addresses of built-in network adapters, and the machine id."""

    serials: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    machine_id: str = ""


def same(then: Machine, now: Machine) -> bool:
    """Whether two descriptions are of one machine, by the strongest property of both.

    Only root reads some serial numbers, so one side may know more.
    """
    if then.serials and now.serials:
        return bool(set(then.serials) & set(now.serials))
    if then.adapters and now.adapters:
        return bool(set(then.adapters) & set(now.adapters))
    return then.machine_id == now.machine_id


def merged(then: Machine, now: Machine) -> Machine:
    """Merge two descriptions of one machine; the newer one wins."""
    return Machine(
        serials=now.serials or then.serials,
        adapters=now.adapters or then.adapters,
        machine_id=now.machine_id or then.machine_id,
    )


def this_machine(root: Path = Path("/")) -> Machine:
    """Describe the machine whose file system begins at `root`."""
    serials = (text(root / place, for_root=True) for place in SERIALS)
    nets = entries(root / "sys/class/net")
    return Machine(
        serials=tuple(each for each in serials if _is_serial(each)),
        adapters=tuple(sorted(filter(None, map(_built_in, nets)))),
        machine_id=text(root / "etc/machine-id", for_root=True),
    )


def _is_serial(serial: str) -> bool:
    return serial.lower() not in PLACEHOLDERS and bool(serial.strip("0-fF"))


def _built_in(net: Path) -> str | None:
    """Return an adapter's own address, unless it is virtual, random or on USB."""
    try:
        device = (net / "device").resolve(strict=True)
    except (OSError, RuntimeError):  # none, or gone since it was listed
        return None
    if "/usb" in str(device):
        return None
    address = text(net / "address", for_root=True)
    try:
        own = not int(address[:2], 16) & LOCALLY_ADMINISTERED
    except ValueError:
        return None
    return address if own and address.strip("0:") else None


FILE = "node.json"
CERTIFICATE = "node.pem"
LOCK = "node.lock"


class StoredIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the identity file."""

    id: str
    machine: Machine


class Identity:
    """The node's id and certificate; `renew` replaces both for good.

    An id that cannot be written lasts as long as the process.
    """

    def __init__(self, folder: Path, machine: Machine) -> None:
        self._folder = folder
        self._stored = _read(folder / FILE)
        self._machine = machine
        certificate = stored_certificate(folder / CERTIFICATE)
        if self._stored is not None and same(self._stored.machine, machine):
            self._machine = merged(self._stored.machine, machine)
            if certificate and certificate.id == self._stored.id:
                self._adopt(certificate)
                return
            log.info("this node gets a new id, which belongs to its certificate")
        elif self._stored is not None:
            log.warning(
                "%s belongs to another machine: this node gets a new id", folder / FILE
            )
        self.renew()

    def shown(self) -> str:
        """Return the fingerprint of the certificate that connections show now."""
        return self.fingerprint

    def renew(self) -> None:
        """Take a new certificate and its id, as when another machine has this one."""
        certificate = new_certificate("edgeserve node")
        try:
            keep(certificate, self._folder / CERTIFICATE)
        except OSError as error:
            self._cannot_write(CERTIFICATE, error)
        self._adopt(certificate)

    def _adopt(self, certificate: Certificate) -> None:
        self.id, self.fingerprint = certificate.id, certificate.fingerprint
        self.context = server_context(certificate)
        current = StoredIdentity(id=self.id, machine=self._machine)
        if current == self._stored:
            return
        try:
            replace_file(self._folder / FILE, msgspec.json.encode(current))
        except OSError as error:
            self._cannot_write(FILE, error)
        else:
            self._stored = current

    def _cannot_write(self, file: str, error: OSError) -> None:
        log.warning(
            "cannot write %s: %s; after a restart, balancers may take this node for a"
            " new one",
            *(self._folder / file, in_words(error)),
        )


@contextmanager
def identified(state_dir: Path, machine: Machine) -> Generator[Identity]:
    """Hold the state folder and the identity in it for the length of the block.

    Raises SettingsError where the folder cannot be used, or another node holds it. A
    disk that is full or read-only does not stop the node.
    """
    with _locked(state_dir):
        yield Identity(state_dir, machine)


class NodeRuns(SettingsError):
    """A node holds the state folder."""


@contextmanager
def no_node_in(state_dir: Path) -> Generator[None]:
    """Keep nodes from starting with a state folder during the block.

    Raises NodeRuns where one has started.
    """
    if not state_dir.is_dir():
        yield
        return
    with _locked(state_dir):
        yield


@contextmanager
def _locked(state_dir: Path) -> Generator[None]:
    """Hold the folder's lock; the kernel releases it however this process ends."""
    refuse_closed(state_dir)
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock: IO[bytes] | None = open_lock(state_dir / LOCK)
    except OSError as error:
        if error.errno not in OUT_OF_ORDER:
            raise SettingsError(
                f"cannot keep state in {state_dir}: {error.strerror}; choose another"
                " folder with --state-dir"
            ) from error
        log.warning("nothing is stored in %s: %s", state_dir, in_words(error))
        lock = None
    with lock or nullcontext():
        if lock:
            _take(lock, state_dir)
        yield


def _take(lock: IO[bytes], state_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise NodeRuns(
            f"another node keeps its state in {state_dir}; stop that node, or give"
            " this one another folder with --state-dir or EDGESERVE_STATE_DIR"
        ) from error


def _read(path: Path) -> StoredIdentity | None:
    """Read the file; a damaged one counts as missing, with a warning."""
    try:
        return read_json(path, StoredIdentity)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning(
            "cannot use %s (%s): this node gets a new id, and balancers take it for a"
            " new node",
            *(path, in_words(error)),
        )
        return None
