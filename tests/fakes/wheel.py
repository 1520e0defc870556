"""Wheels of this tree, as pip takes them, without building: a zip of its files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("edgeserve", "node", "balancer", "quantize")


def a_wheel(
    folder: Path, version: str, changes: Mapping[str, str] | None = None
) -> Path:
    """Write a wheel of `version`; `changes` are files with another content."""
    path = folder / f"edgeserve-{version}-py3-none-any.whl"
    info = f"edgeserve-{version}.dist-info"
    files = {
        str(each.relative_to(ROOT)): each.read_text()
        for package in PACKAGES
        for each in (ROOT / package).rglob("*")
        if each.is_file() and each.suffix in {".py", ".txt", ".typed"}
    }
    init = "edgeserve/__init__.py"
    files[init] = files[init].replace('"0.1.0"', f'"{version}"')
    files |= changes or {}
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: edgeserve\nVersion: {version}\n"
    )
    files[f"{info}/WHEEL"] = (
        "Wheel-Version: 1.0\nGenerator: tests\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/entry_points.txt"] = (
        "[console_scripts]\nedgeserve = edgeserve.cli.main:main\n"
    )
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/RECORD", record)
    return path
