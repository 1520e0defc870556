"""Toolchain: find the compilers of this machine."""

from __future__ import annotations

import ctypes.util
import os
import platform
import shutil
import subprocess
from pathlib import Path

from node.engine_build.backends import INSTALL, Toolchain
from node.hardware.gpus import QUESTION, SECONDS, parse_nvidia, program_output
from node.hardware.readings import cpu_fields

COMPILERS = ("c++", "g++", "clang++")
CUDA_FOLDER = Path("/usr/local/cuda/bin")
"""Where NVIDIA's own installer puts nvcc, which is not on PATH."""

NVIDIA = ("/dev/nvidiactl", "/dev/nvhost-gpu")
"""Devices of NVIDIA's drivers, for cards and for Jetson, where nvidia-smi fails."""


def look() -> Toolchain:
    """Find compilers, libraries, GPUs and the package tool."""
    tools = {name for name in ("cmake", "glslc") if shutil.which(name)}
    if compiler() != "unknown":
        tools.add("c++")
    if nvcc() is not None:
        tools.add("nvcc")
    return Toolchain(
        tools=frozenset(tools),
        system=platform.system(),
        installer=next((name for name in INSTALL if shutil.which(name)), None),
        nvidia_gpu=_there(*NVIDIA)
        or bool(parse_nvidia(program_output(QUESTION, SECONDS))),
        render_node=any(Path("/dev/dri").glob("renderD*")),
        vulkan=_vulkan(),
        amx="amx_int8" in cpu_fields().get("flags", "").split(),
        arm=frozenset(cpu_fields().get("Features", "").split()),
        compiler=compiler(),
    )


def nvcc() -> str | None:
    """Return the path of CUDA's compiler."""
    return shutil.which("nvcc") or shutil.which("nvcc", path=str(CUDA_FOLDER))


def compiler() -> str:
    """Return the first line of the compiler's `--version`.

    CXX names another compiler, as for cmake.
    """
    names = (os.environ.get("CXX", ""), *COMPILERS)
    name = next((name for name in names if shutil.which(name)), None)
    if name is None:
        return "unknown"
    done = subprocess.run(
        [name, "--version"], capture_output=True, text=True, check=False
    )
    return done.stdout.partition("\n")[0]


def _vulkan() -> bool:
    headers = ("/usr/include", "/usr/local/include", "/opt/homebrew/include")
    has_headers = _there(*(f"{at}/vulkan/vulkan.h" for at in headers))
    return has_headers and ctypes.util.find_library("vulkan") is not None


def _there(*paths: str) -> bool:
    return any(Path(path).exists() for path in paths)
