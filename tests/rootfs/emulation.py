"""Programs for another processor, run by qemu where the kernel meets one of them.

`python -m tests.rootfs.emulation arm64 COMMAND…` runs a command that meets some.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

QEMU = "qemu-aarch64-static"
BINFMT = Path("/proc/sys/fs/binfmt_misc")
NAME = "edgeserve-test-arm64"
MAGIC = r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"


@contextmanager
def emulation(architecture: str) -> Generator[None]:
    """Have the kernel run programs of arm64 for the length of the block.

    The kernel opens qemu when it is told of it, so it need not be in the root file
    system. What has been registered for arm64 already is used, and stays.
    """
    if architecture != "arm64":
        raise ValueError(f"there is no emulation of {architecture} here")
    if not (BINFMT / "register").exists():
        mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)]
        subprocess.run(mount, check=True, capture_output=True)
    if any(each.name in {NAME, "qemu-aarch64"} for each in BINFMT.iterdir()):
        yield
        return
    qemu = shutil.which(QEMU)
    (BINFMT / "register").write_text(f":{NAME}:M::{MAGIC}:{MASK}:{qemu}:F\n")
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            (BINFMT / NAME).write_text("-1")


if __name__ == "__main__":
    with emulation(sys.argv[1]):
        status = subprocess.run(sys.argv[2:]).returncode
    sys.exit(status)
