"""The GPUs of this machine and their memory: NVIDIA's tool, AMD's driver files."""

from __future__ import annotations

import subprocess
from pathlib import Path

from edgeserve.wire import Gpu

MIB = 2**20
SECONDS = 10.0
"""How long `nvidia-smi` may take: seconds, where the driver has to wake up."""

QUESTION = (
    "nvidia-smi",
    "--query-gpu=name,memory.total,memory.free",
    "--format=csv,noheader,nounits",
)


def gpus(root: Path = Path("/")) -> tuple[Gpu, ...]:
    """Return every GPU found."""
    return (*parse_nvidia(asked(QUESTION, SECONDS)), *_amd(root))


def asked(argv: tuple[str, ...], seconds: float) -> str:
    """Return what a program prints, or "" where it is missing, slow or fails."""
    try:
        done = subprocess.run(
            argv, capture_output=True, timeout=seconds, check=True, text=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout


def parse_nvidia(text: str) -> tuple[Gpu, ...]:
    """Read `nvidia-smi`'s table; a line with `[N/A]`, as on Jetson, is left out."""
    rows = [line.rsplit(",", 2) for line in text.splitlines()]
    return tuple(
        Gpu(
            name=row[0].strip(),
            memory_total=int(row[1]) * MIB,
            memory_free=int(row[2]) * MIB,
        )
        for row in rows
        if len(row) == 3 and row[1].strip().isdecimal() and row[2].strip().isdecimal()
    )


def _amd(root: Path) -> list[Gpu]:
    found: list[Gpu] = []
    for device in sorted(root.glob("sys/class/drm/card?/device")):
        try:
            total = int((device / "mem_info_vram_total").read_text())
            used = int((device / "mem_info_vram_used").read_text())
        except (OSError, ValueError):
            continue
        name = _text(device / "product_name") or "AMD GPU"
        found.append(Gpu(name=name, memory_total=total, memory_free=total - used))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
