"""Engine builds: the builds made on this machine, one of which is in use."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import msgspec

from edgeserve.errors import CommandError, in_words
from edgeserve.runtime.files import read_json, replacing

log = logging.getLogger(__name__)

CURRENT = "current"
MANIFEST = "build.json"


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest of a build. `seconds`: how long it took; `devices`: as it lists."""

    format: int = 1
    name: str
    backend: str
    commit: str
    version: str
    flags: tuple[str, ...]
    compiler: str
    devices: tuple[str, ...]
    machine: str
    source: str
    jobs: int
    seconds: float
    made: str

    @property
    def identity(self) -> str:
        """The key of measured speeds: `0c1e57098-cuda-5d41aa`.

        The same source, backend, flags and compiler give the same key.
        """
        made_with = "\n".join((*self.flags, self.compiler))
        digest = hashlib.sha256(made_with.encode()).hexdigest()[:6]
        return f"{self.commit}-{self.backend}-{digest}"


class NoSuchBuild(CommandError):
    """There is no build of that name; the message lists the builds."""

    exit_status = 2

    def __init__(self, name: str, there: list[str]) -> None:
        known = ", ".join(there) or "none; `edgeserve engine build` makes one"
        super().__init__(f"no build {name!r} here; there are: {known}")


def engines_dir(state_dir: Path) -> Path:
    """Return the folder of all builds."""
    return state_dir / "engines"


def builds(state_dir: Path) -> list[Build]:
    """Return the builds, the oldest first; a folder without manifest is none."""
    folders = engines_dir(state_dir).glob("[!.]*")
    found = [build_in(each) for each in folders if not each.is_symlink()]
    there = [each for each in found if each]
    return sorted(there, key=lambda build: (build.made, build.name))


def build_in(folder: Path) -> Build | None:
    """Return the build in a folder; None without a readable manifest."""
    try:
        return read_json(folder / MANIFEST, Build)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        log.warning(
            "%s is no build: its %s cannot be used (%s); build it again",
            *(folder, MANIFEST, in_words(error)),
        )
        return None


def in_use(state_dir: Path) -> str | None:
    """Return the name of the build that nodes use."""
    try:
        return (engines_dir(state_dir) / CURRENT).readlink().name
    except OSError:  # none is in use
        return None


def use(state_dir: Path, name: str) -> None:
    """Make nodes use this build from their next start. Raises NoSuchBuild."""
    folder = engines_dir(state_dir)
    there = [build.name for build in builds(state_dir)]
    if name not in there:
        raise NoSuchBuild(name, there)
    with replacing(folder / CURRENT, durable=False) as link:
        link.symlink_to(name, target_is_directory=True)


def free_name(state_dir: Path, commit: str, backend: str) -> str:
    """Return an unused name: `0c1e57098-cuda`, then `0c1e57098-cuda-2`."""
    folder = engines_dir(state_dir)
    name, count = f"{commit}-{backend}", 1
    while (folder / name).exists():
        count += 1
        name = f"{commit}-{backend}-{count}"
    return name
