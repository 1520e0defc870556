"""A bare Debian as debootstrap makes it: made once, kept outside the tree.

`$ROOTFS_CACHE` names the folder, `~/.cache/edgeserve-rootfs` if it is not set. Packages
come from the archive that this machine's own apt uses.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.fleet import network
from tests.rootfs.emulation import QEMU, emulation

SUITE = "trixie"
NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "")
TARGETS = ["apt-get", "indextargets", "Created-By: Packages"]
FORMAT = "$(ORIGIN)|$(SUITE)|$(REPO_URI)"
SECONDS = 1800.0
TOOLS = {
    "debootstrap": "debootstrap",
    "slirp4netns": "slirp4netns",
    "unshare": "util-linux",
    "ip": "iproute2",
}


def cache() -> Path:
    """Return the folder for what is kept from run to run."""
    return Path(
        os.environ.get("ROOTFS_CACHE", "~/.cache/edgeserve-rootfs")
    ).expanduser()


def impossible(architecture: str = NATIVE) -> str | None:
    """Say why a bare Debian cannot be made and started here, or None."""
    wanted = TOOLS | ({} if architecture == NATIVE else {QEMU: "qemu-user-static"})
    for tool, package in wanted.items():
        if shutil.which(tool) is None:
            return f"needs `{tool}`: apt-get install {package}"
    return network.impossible()


def archive() -> str:
    """Find the Debian archive that apt uses here."""
    argv = [*TARGETS, "--format", FORMAT]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    rows = [line.split("|") for line in said.splitlines()]
    plain = [
        uri for origin, suite, uri in rows if origin == "Debian" and "-" not in suite
    ]
    if not plain:
        raise RuntimeError(
            "apt knows no Debian archive here; run `apt-get update` first"
        )
    return plain[0]


def base(architecture: str = NATIVE) -> Path:
    """Return the folder of a bare Debian; make it, if there is none yet."""
    folder = cache() / f"{SUITE}-{architecture}"
    if not folder.exists():
        cache().mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix="making-", dir=cache()))
        try:
            _bootstrap(made, architecture)
            made.chmod(0o755)
            made.rename(folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    return folder


def _bootstrap(folder: Path, architecture: str) -> None:
    argv = ["debootstrap", "--variant=minbase", f"--arch={architecture}"]
    if architecture == NATIVE:
        _run([*argv, SUITE, str(folder), archive()])
    else:
        _run([*argv, "--foreign", SUITE, str(folder), archive()])
        with emulation(architecture):
            _run(["chroot", str(folder), "/debootstrap/debootstrap", "--second-stage"])
    for package in (folder / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()


def _run(argv: list[str]) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": "/root", "LC_ALL": "C"}
    done = subprocess.run(
        argv, env=environ, capture_output=True, text=True, timeout=SECONDS
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(argv)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
