"""Source: get llama.cpp from the llama-cpp-python sdist or from a folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeserve.errors import EngineUnavailable
from edgeserve.runtime.tether import tethered

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
"""Has llama.cpp 0c1e57098, for which the launch flags were written."""

INSIDE = "vendor/llama.cpp"
HEAD = f".git/modules/{INSIDE}/HEAD"

Show = Callable[[str, int, int], None]
"""Called with the step, the work done in it, and all work of it."""


class NoSource(EngineUnavailable):
    """The source cannot be read; the message says what to do."""


class NotASource(NoSource):
    """The named file or folder holds no source of llama.cpp."""

    exit_status = 2


@dataclass(frozen=True)
class Source:
    """An unpacked llama.cpp. `commit` is 9 digits, or `unknown`."""

    folder: Path
    commit: str
    origin: str


def source(named: Path | None, work: Path, show: Show) -> Source:
    """Return the source to build: `named`, an sdist or a folder, else downloaded.

    `work` is the folder for downloads and unpacked files. Raises NoSource.
    """
    if named is None:
        sdist = _download(work, show)
        return _unpacked(sdist, work, show)
    if named.is_dir():
        return _folder(named)
    if named.is_file():
        return _unpacked(named, work, show)
    raise NotASource(f"{named} is neither a folder nor an sdist")


def _folder(named: Path) -> Source:
    for folder in (named / INSIDE, named):
        if (folder / "ggml" / "CMakeLists.txt").exists():
            head = named / HEAD
            commit = head.read_text().strip()[:9] if head.exists() else "unknown"
            return Source(folder.absolute(), commit, str(named))
    raise NotASource(f"{named} holds no llama.cpp (no ggml/CMakeLists.txt in it)")


def _unpacked(sdist: Path, work: Path, show: Show) -> Source:
    """Unpack only llama.cpp, without its `.git`, which is a broken link here."""
    target = work / "source"
    commit = "unknown"
    try:
        with tarfile.open(sdist) as archive:
            # Python before 3.11.4, such as Debian 12's, has no filters.
            archive.extraction_filter = getattr(tarfile, "data_filter", _as_it_is)
            members = archive.getmembers()
            for done, member in enumerate(members):
                show("unpacking", done, len(members))
                _, _, path = member.name.partition("/")
                if path == HEAD:
                    file = archive.extractfile(member)
                    commit = file.read(9).decode() if file else commit
                elif path.startswith(f"{INSIDE}/") and path != f"{INSIDE}/.git":
                    member.name = path.removeprefix(f"{INSIDE}/")
                    archive.extract(member, target)
            show("unpacking", len(members), len(members))
    except (OSError, tarfile.TarError, EOFError) as error:
        # `tarfile` lists the error of every decompressor, one in a line.
        why, *_ = str(error).splitlines() or ["it is empty"]
        message = f"{sdist} is not a whole sdist: {why.rstrip(':')}"
        raise NotASource(message) from error
    if not (target / "CMakeLists.txt").exists():
        raise NotASource(f"{sdist} holds no {INSIDE}; take an sdist of {PACKAGE}")
    return Source(target, commit, sdist.name)


def _as_it_is(member: tarfile.TarInfo, _: str) -> tarfile.TarInfo:
    return member


def _download(work: Path, show: Show) -> Path:
    """Let pip download the sdist, so that the user's index and proxy are used."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    options = [
        *("download", "--no-deps", "--no-binary", PACKAGE, "--progress-bar", "raw"),
        *("--dest", str(work), f"{PACKAGE}=={VERSION}"),
    ]
    output = list[str]()
    with subprocess.Popen(
        tethered([*pip, *options]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(work)},  # /tmp may be small memory
    ) as running:
        assert running.stdout is not None  # noqa: S101 - what PIPE means
        for done, total in _progress(running.stdout, output):
            show("downloading", done, total)
    found = next(work.glob("*.tar.gz"), None)
    if running.returncode != 0 or found is None:
        why = next((line for line in reversed(output) if "ERROR" in line), "no reason")
        raise NoSource(
            f"pip could not download the source of {PACKAGE} {VERSION}: {why};"
            " without a network, name an sdist with --source"
        )
    return found


def _progress(lines: Iterator[str], output: list[str]) -> Iterator[tuple[int, int]]:
    for line in lines:
        found = re.match(r"Progress (\d+) of (\d+)", line)
        if found:
            yield int(found[1]), int(found[2])
        else:
            output.append(line.strip())
