import pytest

from edgeserve.wire import Launch, Placement
from node.engines.devices import (
    ALL,
    Device,
    Offload,
    applied,
    experts_on_cpu,
    from_fit_tool,
    listed,
    offload_of,
    stepped_down,
)
from node.engines.output import LogReader, ran_out_of_memory


def placement(lines: list[str]) -> Placement | None:
    reader = LogReader()
    for line in lines:
        reader.see(line)
    return reader.placement


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


def test_the_fit_tools_line_is_read() -> None:
    line = '-c 8192 -ngl 41 -ts 22,19 -ot "blk\\.4\\.ffn=CPU,blk\\.5\\.ffn=CPU"'

    found = from_fit_tool(line)

    assert found.layers == 41
    assert found.split == (22, 19)
    assert found.overrides.startswith("blk")


def test_the_fit_tools_minus_one_means_all_layers() -> None:
    assert from_fit_tool("-c 4096 -ngl -1") == Offload(layers=ALL)


def test_another_text_is_not_taken_for_the_fit_tools() -> None:
    with pytest.raises(ValueError, match="llama-fit-params"):
        from_fit_tool("error: no such file")


def test_steps_down_end_on_the_cpu_and_then_nowhere() -> None:
    offload: Offload | None = Offload(layers=ALL)
    layers = []
    while offload := stepped_down(offload, 33) if offload else None:
        layers.append(offload.layers)

    assert layers == [29, 25, 21, 17, 13, 9, 5, 1, 0]


def test_a_step_keeps_the_split_and_the_overrides() -> None:
    offload = Offload(layers=20, split=(1, 2), overrides="exps=CPU")

    assert stepped_down(offload, 33) == Offload(
        layers=16, split=(1, 2), overrides="exps=CPU"
    )


def test_experts_of_the_first_layers_stay_on_the_cpu() -> None:
    pattern = experts_on_cpu(2)

    assert pattern.split(",")[1].startswith(r"blk\.1\.ffn_")
    assert pattern.count("=CPU") == 2
    assert experts_on_cpu(0) == ""
    assert experts_on_cpu(-1).count("=CPU") == 1


def test_an_offload_survives_its_launch() -> None:
    launch = Launch(slots=1, context=512, batch=64, threads=2)
    offload = Offload(layers=7, split=(1, 3), overrides="exps=CPU")

    assert offload_of(applied(launch, offload)) == offload


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
