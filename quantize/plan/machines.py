"""Machines: usual machines and the memory each has for a model. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from edgeserve.errors import CommandError
from edgeserve.models.memory import GIB, MIB, parse_size
from edgeserve.suggestions import did_you_mean


@dataclass(frozen=True)
class Machine:
    """A machine to run a model; `usable` bytes are free when nothing else runs."""

    name: str
    usable: int


SYSTEM = 400 * MIB
"""Memory of an idle headless Raspberry Pi OS or Debian, with the node agent."""

MARGIN = 0.9
"""Usable share of the rest; the remainder covers page cache and unknown uses."""


def with_memory(name: str, installed: int) -> Machine:
    """Return a machine: installed memory less the system, times the margin."""
    return Machine(name, max(0, int((installed - SYSTEM) * MARGIN)))


def with_gpu(name: str, installed: int) -> Machine:
    """Return a GPU: its memory less the 1 GiB that llama.cpp's own fit leaves free."""
    return Machine(name, installed - GIB)


MACHINES = {
    machine.name: machine
    for machine in (
        *(with_memory(f"pi4-{n}gb", n * GIB) for n in (1, 2, 4, 8)),
        *(with_memory(f"pi5-{n}gb", n * GIB) for n in (2, 4, 8, 16)),
        *(with_memory(f"laptop-{n}gb", n * GIB) for n in (8, 16, 32, 64)),
        *(with_gpu(f"gpu-{n}gb", n * GIB) for n in (8, 12, 16, 24, 48, 80)),
    )
}

USUAL = ("pi4-2gb", "pi5-4gb", "pi5-8gb", "laptop-16gb", "gpu-24gb")


def find(names: tuple[str, ...], sizes: tuple[str, ...]) -> tuple[Machine, ...]:
    """Turn `--machine` and `--memory` into machines; without either, the usual ones.

    A size from `--memory` counts as free memory. Raises UnknownMachine.
    """
    found = [_named(name) for name in names]
    for text in sizes:
        try:
            found.append(Machine(text, parse_size(text)))
        except ValueError as error:
            raise UnknownMachine(str(error)) from error
    return tuple(found) or tuple(MACHINES[name] for name in USUAL)


def _named(name: str) -> Machine:
    if name not in MACHINES:
        known = ", ".join(MACHINES)
        raise UnknownMachine(
            f"{name!r} is not a known machine; known: {known}"
            f"{did_you_mean(name, MACHINES)}"
        )
    return MACHINES[name]


class UnknownMachine(CommandError):
    """The machine or size is unknown; the message lists the known ones."""

    exit_status = 2
