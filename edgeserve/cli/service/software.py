"""Software of services: a virtual environment for each release; one is used."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgeserve.cli.service.actions import (
    Action,
    Failed,
    MakeFolder,
    Run,
    Symlink,
    quietly,
)
from edgeserve.cli.service.places import Places, is_hidden
from edgeserve.errors import CommandError


@dataclass(frozen=True)
class Software:
    """The releases on this machine."""

    places: Places

    @property
    def folder(self) -> Path:
        """Where the releases are."""
        return self.places.software / "releases"

    def used(self) -> Path | None:
        """Return the release that services run."""
        link = self.places.current
        return link.resolve() if link.is_dir() else None

    def next(self) -> Path:
        """Return the folder of a new release; they are numbered."""
        numbers = [int(each.name) for each in self._releases()]
        return self.folder / str(max(numbers, default=0) + 1)

    def older(self, *kept: Path) -> list[Path]:
        """Return the releases that are not kept."""
        return [each for each in self._releases() if each not in kept]

    def _releases(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(each for each in self.folder.iterdir() if each.name.isdecimal())

    def make(self, release: Path, source: str, python: str) -> list[Action]:
        """Return what makes a release; it is not used yet."""
        own = str(release / "bin" / "python")
        # -I: what PYTHONPATH has is not installed there.
        pip = (own, "-I", "-m", "pip", "install", "--disable-pip-version-check", "-q")
        return [
            MakeFolder(release.parent),
            Run((python, "-m", "venv", str(release))),
            Run((*pip, source)),
            Run((str(release / "bin" / "edgeserve"), "--version")),
        ]

    def use(self, release: Path) -> Action:
        """Return what has services run a release from their next start on."""
        return Symlink(self.places.current, release)

    def forget(self, release: Path) -> None:
        """Remove a release."""
        shutil.rmtree(release, ignore_errors=True)


def version_of(release: Path | None) -> str:
    """Ask a release for its version; "" where it cannot say it."""
    command = release / "bin" / "edgeserve" if release else None
    said = quietly(str(command), "--version") if command else None
    return said.split()[-1] if said and said.split() else ""


def source_of_this() -> str:
    """Return what this EdgeServe was installed from. Raises CommandError.

    pip notes a clone, a file or a URL, but no index; EdgeServe is on none.
    """
    try:
        noted = distribution("edgeserve").read_text("direct_url.json")
    except PackageNotFoundError:
        noted = None
    try:
        found = json.loads(noted or "null")
        url, vcs = str(found["url"]), found.get("vcs_info")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CommandError(
            "cannot tell what this EdgeServe was installed from; --from names a clone,"
            " a wheel or a git URL"
        ) from error
    if vcs:
        revision = vcs.get("requested_revision")
        return f"{vcs['vcs']}+{url}{f'@{revision}' if revision else ''}"
    return unquote(urlsplit(url).path) if url.startswith("file:") else url


def checked_source(source: str) -> str:
    """Return a source as pip takes it. Raises CommandError for a path without one."""
    path = Path(source).expanduser()
    if "://" in source:
        return source
    if not path.exists():
        raise CommandError(
            f"there is no {path}; --from names a clone, a wheel or a git URL"
        )
    return str(path.resolve())


def base_python(places: Places, named: Path | None) -> str:
    """Return the Python to make virtual environments with. Raises CommandError."""
    own = str(getattr(sys, "_base_executable", "") or sys.executable)
    python = str(named or Path(own).resolve())
    if places.scope == "system" and is_hidden(Path(python).resolve()):
        raise CommandError(
            f"services of the machine cannot see {python}; --python names another one,"
            " such as /usr/bin/python3"
        )
    return python


def made(software: Software, source: str, python: str) -> Path:
    """Make a release; nothing is left of it where that fails. Raises Failed."""
    release = software.next()
    try:
        for each in software.make(release, source, python):
            each.do()
    except (Failed, OSError, KeyboardInterrupt):
        software.forget(release)
        raise
    return release
