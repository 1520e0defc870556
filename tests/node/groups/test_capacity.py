"""What a node says that it could give to a group."""

from __future__ import annotations

import msgspec
import pytest

from edgeserve.reports.hardware import Memory
from node.engines.devices import Device
from node.groups.capacity import STEP, capacity
from tests.fakes.reports import HARDWARE

GB = 10**9


def given(free: float, *devices: Device, **fields: object) -> float:
    """Gigabytes that a machine with so many free ones could give."""
    memory = Memory(total=64 * GB, available=int(free * GB))
    usual: dict[str, object] = {
        "staying": (0, 0), "allowed": None, "threads": 4, "head": True,
    }  # fmt: skip
    found = capacity(
        msgspec.structs.replace(HARDWARE, memory=memory),
        devices,
        **usual | fields,  # type: ignore[arg-type]
    )
    assert found.memory % STEP == 0
    return found.memory / GB


def test_a_share_of_the_free_memory_stays_free() -> None:
    assert given(10) == pytest.approx(9, abs=0.01)


def test_what_the_settings_allow_is_the_most() -> None:
    assert given(10, allowed=4 * GB) == pytest.approx(4, abs=0.01)


def test_engines_that_never_leave_are_left_out() -> None:
    assert given(10, staying=(5 * GB, 0)) == pytest.approx(4.5, abs=0.01)


def test_with_a_gpu_its_memory_counts() -> None:
    gpu = Device("CUDA0", "NVIDIA RTX 3060", 12 * GB, 10 * GB)

    assert given(30, gpu, staying=(20 * GB, 0)) == pytest.approx(9, abs=0.01)


def test_a_full_machine_gives_nothing() -> None:
    assert given(1, staying=(2 * GB, 0)) == 0
