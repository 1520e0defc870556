"""Build backends: which processor or GPU to build for, and its requirements. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Backend = Literal["cpu", "cuda", "vulkan", "metal"]
BACKENDS: Sequence[Backend] = ("cpu", "cuda", "vulkan", "metal")

TARGETS = (
    "llama-server", "llama-quantize", "llama-imatrix", "llama-perplexity",
    "llama-fit-params", "llama-bench", "llama-batched-bench", "ggml-rpc-server",
)  # fmt: skip
"""The tools that are built, one file each, without own shared libraries."""


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """The tools and devices that this machine has for a build.

    `tools` are the programs found, of `cmake`, `c++`, `nvcc`, `glslc`; `installer` is
    this system's package tool, of `apt-get`, `dnf`, `pacman`, `apk`, `brew`, if known.
    `render_node`: there is some GPU; `vulkan`: its headers and library are installed;
    `amx`: the processor has matrix units; `arm` are an ARM processor's features, as in
    /proc/cpuinfo; `compiler` is the compiler's version line.
    """

    tools: frozenset[str]
    system: str
    installer: str | None = None
    nvidia_gpu: bool = False
    render_node: bool = False
    vulkan: bool = False
    amx: bool = False
    arm: frozenset[str] = frozenset()
    compiler: str = ""


def pick(found: Toolchain) -> Backend:
    """Return the fastest backend that can be built and has a device here."""
    if found.system == "Darwin":
        return "metal"
    if found.nvidia_gpu and "nvcc" in found.tools:
        return "cuda"
    if found.render_node and found.vulkan and "glslc" in found.tools:
        return "vulkan"
    return "cpu"


def lacking(backend: Backend, found: Toolchain) -> str | None:
    """Return in a sentence what to install first; None if nothing is missing."""
    missing = [need for need in _needs(backend) if not _there(need, found)]
    if backend == "metal" and found.system != "Darwin":
        return "Metal is only on macOS; choose --backend cpu, cuda or vulkan"
    if not missing:
        return None
    why = (
        f"building for {backend} needs {', '.join(NEEDS[need][0] for need in missing)}"
    )
    if found.installer not in INSTALL:
        return why
    column = 1 + list(INSTALL).index(found.installer)
    packages = dict.fromkeys(NEEDS[need][column] for need in missing)
    return f"{why}; install with: {INSTALL[found.installer]} {' '.join(packages)}"


INSTALL = {
    "apt-get": "sudo apt-get install",
    "dnf": "sudo dnf install",
    "pacman": "sudo pacman -S",
    "apk": "sudo apk add",
    "brew": "brew install",
}

NEEDS = {
    "c++": ("a C++ compiler",
            "build-essential", "gcc-c++", "base-devel", "build-base", "gcc"),
    "cmake": ("cmake", "cmake", "cmake", "cmake", "cmake", "cmake"),
    "nvcc": ("the CUDA compiler nvcc",
             "nvidia-cuda-toolkit", "cuda-toolkit", "cuda", "cuda", "cuda"),
    "glslc": ("the shader compiler glslc",
              "glslc", "glslc", "shaderc", "shaderc", "shaderc"),
    "vulkan": ("Vulkan's headers",
               "libvulkan-dev spirv-headers",
               "vulkan-loader-devel spirv-headers-devel",
               "vulkan-headers spirv-headers",
               "vulkan-loader-dev spirv-headers",
               "vulkan-loader spirv-headers"),
}  # fmt: skip
"""Each requirement: its name, and the packages that have it, in INSTALL's order."""


def _needs(backend: Backend) -> tuple[str, ...]:
    extra: dict[Backend, tuple[str, ...]] = {
        "cuda": ("nvcc",),
        "vulkan": ("glslc", "vulkan"),
    }
    return ("c++", "cmake", *extra.get(backend, ()))


def _there(need: str, found: Toolchain) -> bool:
    return found.vulkan if need == "vulkan" else need in found.tools


WITHOUT_AMX = "-U__AMX_INT8__"
"""GCC 12 drops the stores that set up AMX, and llama.cpp then crashes at its first
prompt on Xeons that have it (ggml-org/llama.cpp#26954, open)."""

GCC_FOR_AMX, CLANG_FOR_AMX = 13, 16
"""The first versions to try AMX with; it reads prompts about three times as fast."""


def try_amx(found: Toolchain) -> bool:
    """Whether to build with AMX first, and without it if that fails."""
    return found.amx and _sets_up_amx(found.compiler)


def _sets_up_amx(compiler: str) -> bool:
    if clang := re.search(r"clang version (\d+)", compiler):
        return int(clang[1]) >= CLANG_FOR_AMX
    gcc = re.search(r"\) (\d+)\.", compiler)
    return gcc is not None and int(gcc[1]) >= GCC_FOR_AMX


BEYOND_NEON = frozenset(("sve", "sme"))
DOT_PRODUCT = "asimddp"
"""Instructions that multiply and add four bytes at once: a Pi 5 has them."""

ARM_EXTENSIONS = {DOT_PRODUCT: "dotprod", "asimdhp": "fp16", "i8mm": "i8mm"}
"""What /proc/cpuinfo calls a feature, and what the compiler does."""


def arm_architecture(features: frozenset[str]) -> str | None:
    """Return what to tell the compiler of an ARM processor; None: it knows better.

    `-mcpu=native` knows only the processors of its own time, so llama.cpp tries what
    else they can by running programs. The kernel says it for certain.
    """
    if DOT_PRODUCT not in features or features & BEYOND_NEON:
        return None
    found = [name for each, name in ARM_EXTENSIONS.items() if each in features]
    return "+".join(("armv8.2-a", *found))


def without_dot_product(found: Toolchain) -> bool:
    """Whether the processor is an ARM one without these instructions."""
    return bool(found.arm) and DOT_PRODUCT not in found.arm


def configure_flags(
    backend: Backend,
    found: Toolchain,
    commit: str,
    *,
    amx: bool = False,
    architectures: str = "",
) -> tuple[str, ...]:
    """Return the flags for cmake: static tools for this processor.

    With `architectures` of GPUs they are for other machines, too: x86-64 with AVX2.
    """
    flags = [
        "CMAKE_BUILD_TYPE=Release",
        "BUILD_SHARED_LIBS=OFF",
        "LLAMA_BUILD_TESTS=OFF",
        "LLAMA_BUILD_EXAMPLES=OFF",
        "LLAMA_BUILD_APP=OFF",
        "LLAMA_USE_PREBUILT_UI=OFF",  # it would be downloaded
        "LLAMA_OPENSSL=OFF",  # engines speak to the agent, on loopback
        *_processor(found, other_machines=bool(architectures)),
        "GGML_RPC=ON",
        f"GGML_CUDA={_on(backend == 'cuda')}",
        f"GGML_VULKAN={_on(backend == 'vulkan')}",
        f"GGML_METAL={_on(backend == 'metal')}",
        f"LLAMA_BUILD_COMMIT={commit}",
        "LLAMA_BUILD_NUMBER=0",
    ]
    if backend == "cuda":
        flags.append(f"CMAKE_CUDA_ARCHITECTURES={architectures or 'native'}")
    if found.amx and not amx:
        flags += [f"CMAKE_C_FLAGS={WITHOUT_AMX}", f"CMAKE_CXX_FLAGS={WITHOUT_AMX}"]
    return tuple(f"-D{flag}" for flag in flags)


def _processor(found: Toolchain, *, other_machines: bool) -> tuple[str, ...]:
    if other_machines:
        return ("GGML_NATIVE=OFF",)
    architecture = arm_architecture(found.arm)
    if architecture is None:
        return ("GGML_NATIVE=ON",)
    return ("GGML_NATIVE=OFF", f"GGML_CPU_ARM_ARCH={architecture}")


def _on(wanted: bool) -> str:
    return "ON" if wanted else "OFF"


COMPILER_BYTES = 1.5 * 2**30
"""Memory of one compiler process; CUDA and the server's headers take the most."""


def too_small(memory: int) -> str | None:
    """Say why this machine had better not compile, or return None.

    `memory` is its memory and swap.
    """
    if memory >= COMPILER_BYTES:
        return None
    return (
        f"compiling takes {COMPILER_BYTES / 2**30:g} GiB of memory, and here are"
        f" {memory / 2**30:.1f} GiB with swap; add swap, or use the bundled engine,"
        " which needs no build"
    )


def jobs_for(cores: float, memory: int) -> int:
    """Return how many compilers can run at once without swapping."""
    return max(1, min(int(cores), int(memory // COMPILER_BYTES)))
