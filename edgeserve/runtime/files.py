"""Files: writes files atomically, locks folders, computes fingerprints.

Each fault of a file (missing, damaged, a directory, on a full disk) is an OSError that
names the file and says why in `strerror`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from edgeserve.errors import CommandError

if TYPE_CHECKING:  # msgspec costs 15 ms that `--help` need not pay
    import msgspec

MOST_BYTES = 64 * 2**20
"""Longest file that is read; EdgeServe writes none that is longer."""

LONGEST_NAME = 120
"""Bytes of a model's name in a file's name; file systems allow 255 in all."""

OUT_OF_ORDER = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)
)
"""Errors of the disk or the system, not of the given path."""

T = TypeVar("T")


class Unusable(OSError):
    """The file does not hold what is expected there."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(errno.EINVAL, why, str(path))


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a file of at most `most` bytes. Raises OSError.

    Of pipes, only those that a shell has opened are read, `/dev/fd/63` for `<(…)`.
    """
    pipes = str(path).startswith(("/dev/", "/proc/"))
    no_wait = 0 if pipes else getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | no_wait)
    try:
        about = os.fstat(handle)
        kind = about.st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not (stat.S_ISREG(kind) or pipes):
            raise Unusable(path, "not a regular file")
        content = b""
        if about.st_size <= most:
            with os.fdopen(handle, "rb", closefd=False) as file:
                content = file.read(most + 1)
    except OSError as error:
        raise _about(path, error) from error
    finally:
        os.close(handle)
    if max(about.st_size, len(content)) > most:
        raise Unusable(path, f"longer than {most:,} bytes")
    return content


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Read a file of UTF-8. Raises OSError."""
    try:
        return read_bytes(path, most).decode()
    except UnicodeDecodeError as error:
        raise Unusable(path, f"not text in UTF-8 (byte {error.start})") from error


def read_json(path: Path, shape: type[T]) -> T:
    """Read a file of JSON. Raises OSError, also for JSON of another shape."""
    import msgspec

    from edgeserve.wire import MALFORMED

    try:
        return msgspec.json.decode(read_bytes(path), type=shape)
    except MALFORMED as error:
        raise Unusable(path, f"damaged: {error}") from error


def replace_file(
    path: Path, content: bytes, *, mode: int = 0o666, durable: bool = True
) -> None:
    """Write a file atomically, and make its folder. Raises OSError.

    After a power cut the file has its new content, or, if this did not return, its old
    one. Without `durable`, which spares the disk, it may be empty.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(path, durable=durable) as part:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(os.open(part, flags, mode), "wb") as file:
                file.write(content)
    except OSError as error:
        raise _about(path, error) from error


def replace_json(path: Path, value: msgspec.Struct, *, mode: int = 0o666) -> None:
    """Write a value as JSON that people can read. Raises OSError."""
    import msgspec

    content = msgspec.json.format(msgspec.json.encode(value)) + b"\n"
    replace_file(path, content, mode=mode)


@contextmanager
def replacing(
    path: Path, *, part: Path | None = None, durable: bool = True
) -> Generator[Path]:
    """Yield a path to write to; it becomes `path` if the block succeeds.

    Otherwise it is removed. `part` must be in the same file system.
    """
    part = part or path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        yield part
        if durable:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        part.replace(path)
        if durable:
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Write a folder's names to the disk, where the system can do that alone."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def in_memory(content: bytes) -> Generator[str]:
    """Yield a path that holds `content`, for libraries that read only files.

    On Linux nothing reaches a disk, elsewhere a file that only its owner can read does.
    """
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("edgeserve")
        try:
            os.write(handle, content)
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


def open_lock(path: Path) -> IO[bytes]:
    """Open a file to lock it; create it if needed. Raises OSError.

    On a read-only disk an existing file can still be locked.
    """
    flags = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except OSError as error:
        if isinstance(error, IsADirectoryError):
            raise
        try:
            handle = os.open(path, os.O_RDONLY | flags)
        except OSError:
            raise error from None
    return os.fdopen(handle, "rb")


def remove(path: Path) -> None:
    """Remove a file; errors are ignored."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def in_a_name(text: str) -> str:
    """Return a model's name as a part of a file name, cut to `LONGEST_NAME`."""
    return text.replace(":", ".").encode()[:LONGEST_NAME].decode(errors="ignore")


def _about(path: Path, error: OSError) -> OSError:
    """Return the same error, with `path` as its file."""
    if isinstance(error, Unusable):
        return error
    return OSError(error.errno, error.strerror or str(error), str(path))


def stamp(path: Path) -> tuple[int, ...]:
    """Return what changes with a file's content; nothing where there is no file."""
    try:
        about = path.stat()
    except OSError:
        return ()
    return about.st_mtime_ns, about.st_size, about.st_ino


class RepeatedFault:
    """Reports a repeated fault once, until it ends or changes."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._last = ""

    def report(self, what: str) -> None:
        """Report a fault, unless it was the last one reported."""
        if what != self._last:
            self._last = what
            self._report(what)

    def ended(self) -> None:
        """Note the end of the fault: it is reported again if it returns."""
        self._last = ""


def take_lock(lock: IO[bytes], taken: Callable[[], None]) -> None:
    """Lock an open file; call `taken` before waiting for another process."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        taken()
        fcntl.flock(lock, fcntl.LOCK_EX)


@contextmanager
def workshop(folder: Path, name: str, taken: Callable[[], None]) -> Generator[Path]:
    """Lock `folder/.name`, empty at start and end, for the length of the block.

    `taken`: see `take_lock`; it may raise. The lock ends with its process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / f".{name}"
    with open_lock(folder / f".{name}.lock") as lock:
        take_lock(lock, taken)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def part_path(target: Path) -> Path:
    """Return the path of a file until it is complete and verified."""
    return target.with_name(target.name + ".part")


class FolderTaken(CommandError):
    """Another run is writing to the same names."""


def part_of(target: Path) -> AbstractContextManager[Path]:
    """Yield a path to write to; it becomes `target` if the block succeeds."""
    return replacing(target, part=part_path(target))


@contextmanager
def alone_in(folder: Path) -> Generator[None]:
    """Lock the folder against other runs. Raises FolderTaken."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(held)
        raise FolderTaken(f"another run is writing to {folder}; wait for it") from error
    try:
        yield
    finally:
        os.close(held)


SAMPLES, SAMPLE_BYTES = 64, 2**16


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path) -> str:
    """Return a quick hash of a file: its size, both ends and samples between them.

    A full hash of a 15 GB base takes minutes on a Pi.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    with path.open("rb") as file:
        for n in range(SAMPLES):
            file.seek(max(0, size - SAMPLE_BYTES) * n // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:32]
