"""Capacity: what this node could give to a group of machines. Pure.

A member computes on the GPUs where there are any, else on the processor.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeserve.orders.groups import GroupCapacity
from edgeserve.reports.hardware import Hardware
from node.engines.devices import Device
from node.planning.expected_speed import machine_rates
from node.planning.fit import SHARE

STEP = 2**23
"""Free memory moves all the time; smaller changes of it are no news."""


def capacity(
    hardware: Hardware,
    devices: Sequence[Device],
    *,
    staying: tuple[int, int],
    allowed: int | None,
    threads: int,
    head: bool,
) -> GroupCapacity:
    """Return it. `staying`: bytes of main and GPU memory whose engines never leave.

    `hardware` has the free memory without our engines, `allowed` is what the settings
    let all of them take. `head`: it loads on demand.
    """
    main, gpu = staying
    if devices:
        free = sum(each.memory_free for each in devices) - gpu
        memory = free * SHARE
    else:
        memory = (hardware.memory.available - main) * SHARE
        if allowed is not None:
            memory = min(memory, allowed - main)
    rates = machine_rates(hardware, devices, threads)
    return GroupCapacity(
        memory=max(0, int(memory) // STEP * STEP),
        bytes_per_second=rates.memory,
        computing=rates.computing,
        head=head,
    )
