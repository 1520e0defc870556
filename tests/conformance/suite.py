"""llama.cpp's own server tests: out of the sdist whose wheel is the bundled engine."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

PACKAGE = "xllamacpp"
INSIDE = "thirdparty/llama.cpp/"
TESTS = "tools/server/tests"
WANTED = (f"{TESTS}/", "models/templates/", "tools/mtmd/test-1.jpeg")
"""Of llama.cpp: the tests, and what they name by a relative path."""


def unpacked(scratch: Path) -> Path:
    """Download and unpack the tests below `scratch`; return llama.cpp's folder."""
    version = metadata.version(PACKAGE)
    _pip("download", "--no-deps", "--no-binary", PACKAGE, f"{PACKAGE}=={version}",
         "--dest", str(scratch))  # fmt: skip
    (sdist,) = scratch.glob(f"{PACKAGE}-*.tar.gz")
    folder = scratch / "llama.cpp"
    with tarfile.open(sdist) as archive:
        for member in archive:
            _, _, path = member.name.partition(f"/{INSIDE}")
            if member.isfile() and path.startswith(WANTED):
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                target.write_bytes(content.read())
    sdist.unlink()
    (folder / TESTS / "conftest.py").unlink()  # it downloads models; see `plugin`
    return folder


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq"]
    subprocess.run([*command, *arguments], check=True)
