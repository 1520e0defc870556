"""What a build is told of ARM processors: those of Raspberry Pis, by their features."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from node.engine_build.backends import (
    arm_architecture,
    configure_flags,
    too_small,
    without_dot_product,
)
from node.engines.bundled import narrow
from tests.node.engine_build.test_backends import a_toolchain
from tests.patience import PATIENCE

PI_3 = PI_4 = "fp asimd evtstrm crc32 cpuid"
PI_5 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm"
    " lrcpc dcpop asimddp"
)
SNAPDRAGON = f"{PI_5} i8mm bf16"
GRAVITON = f"{SNAPDRAGON} sve"

CROSS = shutil.which("aarch64-linux-gnu-g++")


@pytest.mark.parametrize(
    ("features", "architecture"),
    [
        (PI_3, None),
        (PI_5, "armv8.2-a+dotprod+fp16"),
        (SNAPDRAGON, "armv8.2-a+dotprod+fp16+i8mm"),
        (GRAVITON, None),
        ("", None),
    ],
)
def test_dot_product_kernels_are_built_where_the_kernel_names_the_instructions(
    features: str, architecture: str | None
) -> None:
    found = a_toolchain(arm=frozenset(features.split()))
    flags = configure_flags("cpu", found, "0c1e57098")

    named = [each for each in flags if "GGML_CPU_ARM_ARCH" in each]
    native = "-DGGML_NATIVE=OFF" if architecture else "-DGGML_NATIVE=ON"
    assert named == ([f"-DGGML_CPU_ARM_ARCH={architecture}"] if architecture else [])
    assert native in flags


@pytest.mark.parametrize(
    ("features", "lacks"), [(PI_4, True), (PI_5, False), ("", False)]
)
def test_a_pi_before_the_fifth_is_known_to_lack_them(
    features: str, lacks: bool
) -> None:
    assert without_dot_product(a_toolchain(arm=frozenset(features.split()))) == lacks


@pytest.mark.skipif(CROSS is None, reason="needs aarch64-linux-gnu-g++")
@pytest.mark.parametrize(
    ("features", "wanted"),
    [(PI_5, {"DOTPROD"}), (SNAPDRAGON, {"DOTPROD", "MATMUL_INT8"})],
)
def test_a_compiler_takes_the_architecture_and_has_the_instructions_then(
    features: str, wanted: set[str]
) -> None:
    march = f"-march={arm_architecture(frozenset(features.split()))}"
    done = subprocess.run(
        [str(CROSS), march, "-dM", "-E", "-x", "c++", "/dev/null"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )

    macros = {f"__ARM_FEATURE_{each} 1" for each in wanted}
    assert all(f"#define {each}" in done.stdout for each in macros)


@pytest.mark.parametrize(
    ("mib", "refused"), [(906, True), (906 + 512, True), (906 + 1024, False)]
)
def test_a_machine_of_1_gb_is_told_not_to_compile_unless_it_has_swap(
    mib: int, refused: bool
) -> None:
    said = too_small(mib * 2**20)

    assert (said is not None) == refused
    assert said is None or "swap" in said


def test_a_32_bit_system_is_told_what_to_install() -> None:
    assert "64-bit" in (narrow(2**31 - 1) or "")
    assert narrow(2**63 - 1) is None
