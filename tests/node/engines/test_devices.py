import pytest
from msgspec.structs import replace

from edgeserve.wire import Launch, Placement
from node.engines.devices import (
    ALL,
    Device,
    experts_on_cpu,
    listed,
    stepped_down,
    with_fit,
)
from node.engines.output import Output, ran_out_of_memory


def placement(lines: list[str]) -> Placement | None:
    output = Output()
    for line in lines:
        output.add(line.encode())
    return output.placement


GPU_LOG = """\
load_tensors: offloaded 0/33 layers to GPU
load_tensors:        CUDA0 model buffer size =     0.00 MiB
load_tensors: offloading 20 repeating layers to GPU
load_tensors: offloaded 21/33 layers to GPU
load_tensors:   CPU_Mapped model buffer size =  1000.00 MiB
load_tensors:        CUDA0 model buffer size =  2000.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =   512.00 MiB
sched_reserve:       CUDA0 compute buffer size =   100.00 MiB
"""
MIB = 2**20


def test_the_log_says_where_layers_and_memory_ended() -> None:
    found = placement(GPU_LOG.splitlines())

    assert found == Placement(
        gpu_layers=21,
        layers=33,
        memory={"CUDA0": 2612 * MIB, "CPU_Mapped": 1000 * MIB},
    )


def test_layers_on_a_machine_without_gpu_are_not_called_offloaded() -> None:
    lines = [
        "load_tensors: offloaded 31/31 layers to GPU",
        "load_tensors:          AMX model buffer size =   152.30 MiB",
    ]

    found = placement(lines)

    assert found is not None
    assert (found.gpu_layers, found.layers) == (0, 31)


def test_a_log_without_placement_yields_none() -> None:
    assert placement(["srv  llama_server: loading model"]) is None


@pytest.mark.parametrize(
    "line",
    [
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9000.00 MiB on device"
        " 0: cudaMalloc failed: out of memory",
        "graph_reserve: failed to allocate compute buffers",
        "alloc_tensor_range: failed to allocate CUDA0 buffer of size 9437184000",
    ],
)
def test_running_out_of_memory_is_recognised(line: str) -> None:
    assert ran_out_of_memory(["starting", line])


def test_a_bad_file_is_not_taken_for_lack_of_memory() -> None:
    assert not ran_out_of_memory(["gguf_init_from_file: failed to read magic"])


LAUNCH = Launch(slots=1, context=512, batch=64, threads=2, gpu_layers=3)


def test_the_fit_tools_line_is_read() -> None:
    line = '-c 8192 -ngl 41 -ts 22,19 -ot "blk\\.4\\.ffn=CPU,blk\\.5\\.ffn=CPU"'

    found = with_fit(LAUNCH, line)

    assert found == replace(
        LAUNCH,
        gpu_layers=41,
        tensor_split=(22, 19),
        overrides=r"blk\.4\.ffn=CPU,blk\.5\.ffn=CPU",
    )


@pytest.mark.parametrize("said", ["-1", "-2"])
def test_the_fit_tools_negative_number_means_all_layers(said: str) -> None:
    fixed = replace(LAUNCH, tensor_split=(1, 2), overrides="exps=CPU")

    assert with_fit(fixed, f"-c 4096 -ngl {said}") == replace(LAUNCH, gpu_layers=ALL)


def test_another_text_is_not_taken_for_the_fit_tools() -> None:
    with pytest.raises(ValueError, match="llama-fit-params"):
        with_fit(LAUNCH, "error: no such file")


def test_steps_down_end_on_the_cpu_and_then_nowhere() -> None:
    launch: Launch | None = replace(LAUNCH, gpu_layers=ALL)
    layers = []
    while launch := stepped_down(launch, 33) if launch else None:
        layers.append(launch.gpu_layers)

    assert layers == [29, 25, 21, 17, 13, 9, 5, 1, 0]


def test_a_step_keeps_the_split_and_the_overrides() -> None:
    launch = replace(LAUNCH, gpu_layers=20, tensor_split=(1, 2), overrides="exps=CPU")

    assert stepped_down(launch, 33) == replace(launch, gpu_layers=16)


def test_experts_of_the_first_layers_stay_on_the_cpu() -> None:
    pattern = experts_on_cpu(2)

    assert pattern.split(",")[1].startswith(r"blk\.1\.ffn_")
    assert pattern.count("=CPU") == 2
    assert experts_on_cpu(0) == ""
    assert experts_on_cpu(-1).count("=CPU") == 1


def test_the_engines_list_of_devices_is_read() -> None:
    lines = [
        "Available devices:",
        "  CUDA0: NVIDIA H100 80GB HBM3 (81079 MiB, 80554 MiB free)",
        "  Vulkan0: Intel(R) UHD Graphics (KBL GT2) (15829 MiB, 15000 MiB free)",
    ]

    found = listed(lines)

    assert found[0] == Device(
        "CUDA0", "NVIDIA H100 80GB HBM3", 81079 * MIB, 80554 * MIB
    )
    assert found[1].description == "Intel(R) UHD Graphics (KBL GT2)"


def test_a_machine_without_gpu_lists_none() -> None:
    assert listed(["Available devices:", "  (none)"]) == ()
