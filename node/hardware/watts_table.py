"""Watts by a table: what a machine takes idle and at work, where nothing tells. Pure.

Typical figures as the makers' and reviewers' measurements at the wall have them,
rounded: single-board computers with a bare board; laptops with the display off; mini
PCs and desktops without what is plugged in. They are good enough to compare a small
board with a GPU, not two boards of one kind: a sensor or `power_command` is.
"""

from __future__ import annotations

from edgeserve.reports.hardware import Cpu, Gpu, Power

BOARDS = (
    ("raspberry pi 5", 3.0, 9.0),
    ("raspberry pi compute module 5", 3.0, 9.0),
    ("raspberry pi 4", 2.7, 6.4),
    ("raspberry pi compute module 4", 2.0, 6.0),
    ("raspberry pi 3", 1.6, 5.0),
    ("raspberry pi zero 2", 0.7, 3.0),
    ("jetson", 5.0, 20.0),
    ("rock 5", 2.5, 11.0),
    ("orange pi 5", 2.5, 11.0),
    ("apple m", 5.0, 40.0),
)
"""The beginning or a part of a board's name, in lower case: watts idle and at work."""

LAPTOP = (7.0, 45.0)
MINI = (7.0, 35.0)
DESKTOP = (35.0, 140.0)
SERVER = (90.0, 350.0)
"""Idle and at work."""

FEW_CORES, MANY_CORES = 4, 20
"""Physical cores of a mini PC at most, and of a server at least."""

GPU_IDLE, GPU_MOST = 15.0, 600.0
GIB = 2**30


def typical(cpu: Cpu, power: Power, gpus: tuple[Gpu, ...]) -> tuple[float, float]:
    """Return the watts of such a machine, idle and with all its work."""
    idle, full = _without_gpus(cpu, power)
    for each in gpus:
        # A card takes what its size needs: 70 W with 8 GiB, 450 W and more with 48.
        full += min(max(8.0 * each.memory_total / GIB, 70.0), GPU_MOST)
        idle += GPU_IDLE
    return idle, full


def _without_gpus(cpu: Cpu, power: Power) -> tuple[float, float]:
    name = cpu.model.lower()
    for board, idle, full in BOARDS:
        if board in name:
            return idle, full
    if power.percent is not None:
        return LAPTOP
    if cpu.physical_cores <= FEW_CORES:
        return MINI
    return SERVER if cpu.physical_cores >= MANY_CORES else DESKTOP
