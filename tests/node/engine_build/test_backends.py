import pytest

from node.engine_build.backends import (
    WITHOUT_AMX,
    Backend,
    Toolchain,
    configure_flags,
    jobs_for,
    lacking,
    pick,
    try_amx,
)

GIB = 2**30


def a_toolchain(
    *tools: str,
    system: str = "Linux",
    installer: str | None = "apt-get",
    nvidia_gpu: bool = False,
    render_node: bool = False,
    vulkan: bool = False,
    amx: bool = False,
    arm: frozenset[str] = frozenset(),
    compiler: str = "",
) -> Toolchain:
    return Toolchain(
        tools=frozenset(tools or ("c++", "cmake")),
        system=system,
        installer=installer,
        nvidia_gpu=nvidia_gpu,
        render_node=render_node,
        vulkan=vulkan,
        amx=amx,
        arm=arm,
        compiler=compiler,
    )


@pytest.mark.parametrize(
    ("found", "backend"),
    [
        (a_toolchain(), "cpu"),
        (a_toolchain(system="Darwin"), "metal"),
        (a_toolchain("c++", "cmake", "nvcc", nvidia_gpu=True), "cuda"),
        (a_toolchain("c++", "cmake", "nvcc"), "cpu"),
        (a_toolchain(nvidia_gpu=True), "cpu"),
        (a_toolchain("glslc", vulkan=True, render_node=True), "vulkan"),
        (a_toolchain("glslc", vulkan=True), "cpu"),
        (a_toolchain("glslc", render_node=True), "cpu"),
        (
            a_toolchain(
                "nvcc", "glslc", nvidia_gpu=True, render_node=True, vulkan=True
            ),
            "cuda",
        ),
    ],
)
def test_auto_takes_the_fastest_that_can_be_built_and_has_a_device(
    found: Toolchain, backend: Backend
) -> None:
    assert pick(found) == backend


def test_a_machine_with_everything_lacks_nothing() -> None:
    assert lacking("cpu", a_toolchain()) is None
    assert lacking("cuda", a_toolchain("c++", "cmake", "nvcc")) is None
    assert lacking("vulkan", a_toolchain("c++", "cmake", "glslc", vulkan=True)) is None
    assert lacking("metal", a_toolchain(system="Darwin")) is None


@pytest.mark.parametrize(
    ("backend", "installer", "command"),
    [
        ("cpu", "apt-get", "sudo apt-get install build-essential cmake"),
        ("cpu", "dnf", "sudo dnf install gcc-c++ cmake"),
        ("cpu", "brew", "brew install gcc cmake"),
        (
            "cuda",
            "apt-get",
            "apt-get install build-essential cmake nvidia-cuda-toolkit",
        ),
        ("vulkan", "apt-get", "cmake glslc libvulkan-dev spirv-headers"),
    ],
)
def test_what_is_missing_is_named_with_a_command_to_paste(
    backend: Backend, installer: str, command: str
) -> None:
    said = lacking(backend, a_toolchain("none", installer=installer))

    assert said is not None
    assert said.endswith(command)
    assert "a C++ compiler, cmake" in said


def test_on_an_unknown_system_the_programs_are_named() -> None:
    said = lacking("cuda", a_toolchain("c++", "cmake", installer=None))

    assert said == "building for cuda needs the CUDA compiler nvcc"


def test_metal_is_refused_elsewhere() -> None:
    assert "only on macOS" in (lacking("metal", a_toolchain()) or "")


def test_a_build_is_static_for_this_processor_and_downloads_nothing() -> None:
    flags = configure_flags("cuda", a_toolchain(), "0c1e57098")

    assert {
        "-DBUILD_SHARED_LIBS=OFF",
        "-DGGML_NATIVE=ON",
        "-DGGML_CUDA=ON",
        "-DGGML_VULKAN=OFF",
        "-DCMAKE_CUDA_ARCHITECTURES=native",
        "-DLLAMA_USE_PREBUILT_UI=OFF",
        "-DLLAMA_BUILD_COMMIT=0c1e57098",
    } <= set(flags)
    assert not any("AMX" in flag for flag in flags)


def test_a_build_for_named_gpus_runs_on_other_machines() -> None:
    flags = configure_flags("cuda", a_toolchain(), "0c1e57098", architectures="86;89")

    assert {"-DGGML_NATIVE=OFF", "-DCMAKE_CUDA_ARCHITECTURES=86;89"} <= set(flags)


def test_amx_is_left_out_unless_asked_for_where_the_processor_has_it() -> None:
    found = a_toolchain(amx=True)
    flags = configure_flags("cpu", found, "0c1e57098")
    with_amx = configure_flags("cpu", found, "0c1e57098", amx=True)

    assert f"-DCMAKE_CXX_FLAGS={WITHOUT_AMX}" in flags
    assert f"-DCMAKE_C_FLAGS={WITHOUT_AMX}" in flags
    assert not any("AMX" in flag for flag in with_amx)


@pytest.mark.parametrize(
    ("compiler", "tries"),
    [
        ("c++ (Debian 12.2.0-14+deb12u1) 12.2.0", False),
        ("g++ (Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0", True),
        ("g++ (GCC) 14.2.1 20240912 (Red Hat 14.2.1-3)", True),
        ("Debian clang version 16.0.6 (15~deb12u1)", True),
        ("Debian clang version 14.0.6", False),
        ("Apple clang version 15.0.0 (clang-1500.3.9.4)", False),
        ("unknown", False),
    ],
)
def test_amx_is_tried_first_with_compilers_that_may_set_it_up(
    compiler: str, tries: bool
) -> None:
    assert try_amx(a_toolchain(amx=True, compiler=compiler)) == tries
    assert not try_amx(a_toolchain(amx=False, compiler=compiler))


@pytest.mark.parametrize(
    ("cores", "memory", "jobs"),
    [
        (4, 8 * GIB, 4),
        (4, 2 * GIB, 1),
        (0.5, 8 * GIB, 1),
        (64, 0, 1),
        (16, 24 * GIB, 16),
    ],
)
def test_no_more_compilers_run_than_cores_and_memory_bear(
    cores: float, memory: int, jobs: int
) -> None:
    assert jobs_for(cores, memory) == jobs
