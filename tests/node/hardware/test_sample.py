from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from edgeserve.reports.hardware import Cpu, Gpu, Memory, Power, Thermal
from edgeserve.runtime import log
from node.hardware.gpus import parse_nvidia
from node.hardware.limits import cpus, memory_room
from node.hardware.sample import (
    LatestHardware,
    Sampler,
    measuring,
    notable,
)
from tests.node.building import some_hardware
from tests.patience import PATIENCE

GIB = 2**30


def test_this_machine_can_be_measured() -> None:
    hardware = Sampler()()

    assert 0 < hardware.memory.available <= hardware.memory.total
    assert 1 <= hardware.cpu.physical_cores <= hardware.cpu.logical_cores
    assert 0 <= hardware.cpu.load <= 1


async def test_a_notable_change_is_reported_and_a_small_one_is_not() -> None:
    samples = iter(
        [
            some_hardware(),
            some_hardware(thermal=Thermal(celsius=41.0)),
            some_hardware(power=Power(on_mains=False)),
        ]
    )
    last = some_hardware(power=Power(on_mains=False))
    told = asyncio.Event()
    heard: list[Power] = []
    hardware = LatestHardware(next(samples))

    def tell() -> None:
        heard.append(hardware.latest.power)
        told.set()

    async with (
        measuring(hardware, lambda: next(samples, last), tell, every=0.001),
        asyncio.timeout(PATIENCE),
    ):
        await told.wait()

    assert heard == [Power(on_mains=False)]


async def test_measuring_ends_with_its_block() -> None:
    before = asyncio.all_tasks()
    async with measuring(LatestHardware(some_hardware()), some_hardware, lambda: None):
        assert asyncio.all_tasks() > before

    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    "change",
    [
        {"power": Power(on_mains=False)},
        {"thermal": Thermal(celsius=40.0, throttled=True)},
        {"thermal": Thermal(celsius=40.0, under_voltage=True)},
        {"thermal": Thermal(celsius=60.0)},
        {"memory": Memory(total=8 * GIB, available=5 * GIB)},
        {"gpus": (Gpu(name="new", memory_total=1, memory_free=1),)},
        {"cpu": Cpu(model="Pi", physical_cores=4, logical_cores=4, load=0.9)},
    ],
)
def test_what_changes_a_choice_is_notable(change: dict[str, Any]) -> None:
    assert notable(some_hardware(), some_hardware(**change))


def test_noise_is_not_notable() -> None:
    now = some_hardware(
        memory=Memory(total=8 * GIB, available=6 * GIB - 2**20),
        thermal=Thermal(celsius=42.0),
    )

    assert not notable(some_hardware(), now)


def test_nvidias_table_is_read_and_jetsons_blanks_are_skipped() -> None:
    table = "NVIDIA H100, 80 GB, 81559, 81000\nOrin (nvgpu), [N/A], [N/A]\n"

    assert parse_nvidia(table) == (
        Gpu(
            name="NVIDIA H100, 80 GB",
            memory_total=81559 * 2**20,
            memory_free=81000 * 2**20,
        ),
    )


def test_a_version_2_memory_limit_counts_with_its_droppable_cache(
    tmp_path: Path,
) -> None:
    group(tmp_path, "0::/box")
    write(tmp_path, "sys/fs/cgroup/box/memory.max", str(2 * GIB))
    write(tmp_path, "sys/fs/cgroup/box/memory.current", str(GIB))
    write(tmp_path, "sys/fs/cgroup/box/memory.stat", f"anon 5\ninactive_file {GIB}\n")

    assert memory_room(tmp_path) == (2 * GIB, 2 * GIB)


@pytest.mark.parametrize("lists", ["inactive", "active", "both"])
def test_file_cache_in_use_lately_counts_as_left_too(
    lists: str, tmp_path: Path
) -> None:
    sizes = {"inactive": (GIB, 0), "active": (0, GIB), "both": (GIB // 2, GIB // 2)}
    inactive, active = sizes[lists]
    group(tmp_path / "v2", "0::/box")
    write(tmp_path / "v2", "sys/fs/cgroup/box/memory.max", str(2 * GIB))
    write(tmp_path / "v2", "sys/fs/cgroup/box/memory.current", str(GIB))
    stat = f"active_anon 7\ninactive_file {inactive}\nactive_file {active}\n"
    write(tmp_path / "v2", "sys/fs/cgroup/box/memory.stat", stat)
    group(tmp_path / "v1", "4:memory:/")
    write(tmp_path / "v1", "sys/fs/cgroup/memory/memory.limit_in_bytes", str(2 * GIB))
    write(tmp_path / "v1", "sys/fs/cgroup/memory/memory.usage_in_bytes", str(GIB))
    stat = f"total_inactive_file {inactive}\ntotal_active_file {active}\nactive_file 5"
    write(tmp_path / "v1", "sys/fs/cgroup/memory/memory.stat", stat)

    assert memory_room(tmp_path / "v2") == (2 * GIB, 2 * GIB)
    assert memory_room(tmp_path / "v1") == (2 * GIB, 2 * GIB)


@pytest.mark.parametrize("said", ["", "nonsense", "max", "0x", "\0"])
@pytest.mark.parametrize(
    "place",
    [
        "proc/self/cgroup",
        "sys/fs/cgroup/box/memory.max",
        "sys/fs/cgroup/box/memory.current",
        "sys/fs/cgroup/box/memory.stat",
        "sys/fs/cgroup/box/cpu.max",
    ],
)
def test_a_limit_that_cannot_be_read_is_none(
    place: str, said: str, tmp_path: Path
) -> None:
    group(tmp_path, "0::/box")
    write(tmp_path, "sys/fs/cgroup/box/memory.max", str(2 * GIB))
    write(tmp_path, "sys/fs/cgroup/box/memory.current", str(GIB))
    write(tmp_path, "sys/fs/cgroup/box/cpu.max", "50000 0")
    write(tmp_path, place, said)

    assert memory_room(tmp_path) in (None, (2 * GIB, GIB))
    assert cpus(tmp_path) >= 1


READINGS = {
    "psutil.cpu_percent": "load",
    "psutil.cpu_count": "processor",
    "psutil.virtual_memory": "memory",
    "psutil.sensors_temperatures": "temperature",
    "node.hardware.sample.power": "power",
    "node.hardware.thermal.throttle_flags": "throttling",
    "node.hardware.sample.cpus": "processor",
    "node.hardware.sample.memory_room": "memory",
    "node.hardware.gpus.gpus": "GPUs",
}


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("error", [OSError(24, "too many"), ValueError("x")])
def test_each_reading_fails_alone_and_the_rest_goes_on(
    reading: str,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("node.hardware.sample.GPUS_EVERY", 1)
    log._logged.clear()
    sampler = Sampler()
    before = sampler()

    def broken(*_: object, **__: object) -> object:
        raise error

    monkeypatch.setattr(reading, broken)
    now = [sampler() for _ in range(3)][-1]

    assert now.memory.total == before.memory.total
    assert now.power == before.power
    assert now.gpus == before.gpus
    assert now.cpu.logical_cores == before.cpu.logical_cores
    assert caplog.text.count(f"cannot measure the {READINGS[reading]} of") == 1


def test_without_descriptors_all_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A limit that cannot be read for now is no reason to plan without it."""
    sampler = Sampler()
    monkeypatch.setattr("node.hardware.sample.memory_room", lambda: (GIB, GIB // 2))
    before = sampler()
    monkeypatch.setattr("node.hardware.sample.memory_room", memory_room)

    def no_more(*_: object, **__: object) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "read_bytes", no_more)
    monkeypatch.setattr(Path, "iterdir", no_more)

    assert sampler().memory == before.memory


@pytest.mark.parametrize("reading", READINGS)
def test_a_node_can_start_where_a_reading_fails(
    reading: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> object:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(reading, broken)
    hardware = Sampler()()

    assert hardware.memory.total > 0
    assert hardware.cpu.logical_cores >= 1


def test_a_limit_on_a_parent_group_binds_its_children(tmp_path: Path) -> None:
    group(tmp_path, "0::/user/app")
    write(tmp_path, "sys/fs/cgroup/user/memory.max", str(GIB))
    write(tmp_path, "sys/fs/cgroup/user/memory.current", "0")
    write(tmp_path, "sys/fs/cgroup/user/app/memory.max", "max")

    assert memory_room(tmp_path) == (GIB, GIB)


def test_a_version_1_limit_is_found_where_a_container_mounts_it(
    tmp_path: Path,
) -> None:
    group(tmp_path, "4:memory:/docker/1234", "2:cpu,cpuacct:/docker/1234")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", str(GIB))
    write(tmp_path, "sys/fs/cgroup/memory/memory.usage_in_bytes", str(GIB // 2))

    assert memory_room(tmp_path) == (GIB, GIB // 2)


def test_version_1s_huge_number_is_no_limit(tmp_path: Path) -> None:
    group(tmp_path, "4:memory:/")
    limit = "9223372036854771712"
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", limit)
    write(tmp_path, "sys/fs/cgroup/memory/memory.usage_in_bytes", "0")

    assert memory_room(tmp_path) is None


def test_without_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    assert memory_room(tmp_path) is None


def test_a_cpu_quota_counts_in_both_versions(tmp_path: Path) -> None:
    group(tmp_path / "v2", "0::/box")
    write(tmp_path / "v2", "sys/fs/cgroup/box/cpu.max", "50000 100000")
    group(tmp_path / "v1", "2:cpu,cpuacct:/box")
    write(tmp_path / "v1", "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "25000")
    write(tmp_path / "v1", "sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000")

    assert (cpus(tmp_path / "v2"), cpus(tmp_path / "v1")) == (0.5, 0.25)


def group(root: Path, *lines: str) -> None:
    write(root, "proc/self/cgroup", "\n".join(lines))


def write(root: Path, place: str, text: str) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text(text)
