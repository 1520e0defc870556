"""Files: write whole or not at all, hold a folder alone, take fingerprints.

Whatever is wrong with a file, be it missing, damaged, a directory or on a disk that is
full, is an OSError that names it and says why in `strerror`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from edgeserve.errors import CommandError

if TYPE_CHECKING:  # msgspec costs 15 ms that `--help` need not pay
    import msgspec

MOST_BYTES = 64 * 2**20
"""What is longer was not written here."""

LONGEST_NAME = 120
"""Bytes of a model's name in a file's name; file systems allow 255 in all."""

OUT_OF_ORDER = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)
)
"""What a disk or a system does, not what a person asked for."""

T = TypeVar("T")


class Unusable(OSError):
    """What lies there is not what is kept there."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(errno.EINVAL, why, str(path))


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a file of at most so many bytes. Raises OSError.

    Of pipes only those that a shell has opened are read, `/dev/fd/63` for `<(…)`.
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
    """Write a file whole or not at all, folder included. Raises OSError.

    After a power cut there is the old content or the new; without `durable`, which
    spares the disk, there may be none.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(path, durable=durable) as part:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(os.open(part, flags, mode), "wb") as file:
                file.write(content)
    except OSError as error:
        raise _about(path, error) from error


def replace_json(path: Path, value: msgspec.Struct, *, durable: bool = True) -> None:
    """Write a value as JSON that people can read. Raises OSError."""
    import msgspec

    content = msgspec.json.format(msgspec.json.encode(value)) + b"\n"
    replace_file(path, content, durable=durable)


@contextmanager
def replacing(
    path: Path, *, part: Path | None = None, durable: bool = True
) -> Generator[Path]:
    """Give a name to write to; it becomes `path` only if the block succeeds.

    Nothing is left behind otherwise. `part` must be in the same file system.
    """
    part = part or path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        yield part
        if durable:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def open_lock(path: Path) -> IO[bytes]:
    """Open a file to be locked, made where it can be. Raises OSError.

    Where nothing may be written, what is there can still be locked.
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
    """Remove what we wrote; what cannot be removed stays."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def in_a_name(text: str) -> str:
    """Make a part of a file's name of a model's, however long that is."""
    return text.replace(":", ".").encode()[:LONGEST_NAME].decode(errors="ignore")


def _about(path: Path, error: OSError) -> OSError:
    """Return the same error, as one about `path`."""
    if isinstance(error, Unusable):
        return error
    return OSError(error.errno, error.strerror or str(error), str(path))


class Trouble:
    """What is wrong again and again is said once, until it is right or changes."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = ""

    def met(self, what: str) -> None:
        """Say it, unless it was the last that was said."""
        if what != self._said:
            self._said = what
            self._say(what)

    def over(self) -> None:
        """Once more is worth saying again."""
        self._said = ""


@contextmanager
def workshop(folder: Path, name: str, taken: Callable[[], None]) -> Generator[Path]:
    """Hold `folder/.name`, empty at start and end, for the length of the block.

    Where another process holds it, `taken` is called: it raises, or else we wait. The
    lock ends with its holder, however that ends.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    work = folder / f".{name}"
    with open_lock(folder / f".{name}.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            taken()
            fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def part_path(target: Path) -> Path:
    """Return the name a file has until it is whole and verified."""
    return target.with_name(target.name + ".part")


class FolderTaken(CommandError):
    """Another run is writing to the same names."""


@contextmanager
def part_of(target: Path) -> Generator[Path]:
    """Give a name to write to; it becomes `target` only if the block succeeds."""
    with replacing(target, part=part_path(target)) as part:
        yield part


@contextmanager
def alone_in(folder: Path) -> Generator[None]:
    """Hold the folder against other runs. Raises FolderTaken."""
    if sys.platform == "win32":
        yield  # folders cannot be locked there
        return
    import fcntl

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


CHUNK = 2**20
SAMPLES = 64


def sha256(path: Path, step: Callable[[int], None] = lambda _bytes: None) -> str:
    """Hash a whole file; `step` hears of every chunk's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            step(len(chunk))
    return digest.hexdigest()


def fingerprint(path: Path) -> str:
    """Tell files apart in a moment: size, both ends, and samples between them.

    A whole hash of a 15 GB base would take minutes on a Pi.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    with path.open("rb") as file:
        for n in range(SAMPLES):
            file.seek(max(0, size - CHUNK // 16) * n // (SAMPLES - 1), os.SEEK_SET)
            digest.update(file.read(CHUNK // 16))
    return digest.hexdigest()[:32]
