"""Machine settings: which models a node keeps in memory, and when it sleeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeserve.config.limits import setting
from edgeserve.config.values import at_least, wrong

KINDS_OF_SLEEP = ("off", "suspend", "stop")
"""What the machine may do; all else is a command."""


@dataclass(frozen=True, kw_only=True)
class OnDemandSettings:
    """The settings of a node that has more models than memory."""

    SECTION: ClassVar[str] = ""

    on_demand: bool = setting(
        True,
        "Load a model of the models folder when it is asked for, and unload idle ones"
        " for it. Models that are named, by --model and the like, stay loaded.",
    )
    keep_alive: float = setting(
        0.0,
        "Time after which an idle model is unloaded, in seconds, but for named ones."
        " 0: it stays until its memory is needed.",
    )

    def check_on_demand(self) -> None:
        """Refuse values outside their limits."""
        at_least(self, "keep_alive", 0)


@dataclass(frozen=True, kw_only=True)
class MachineEnergySettings:
    """The settings of a node that has to do with watts."""

    SECTION: ClassVar[str] = ""

    sleep: str = setting(
        "off",
        "What the machine does while no balancer needs it: off (it stays awake),"
        " suspend, stop, or a command that sends it to sleep. Never while it is in"
        " use. A magic packet or the balancer's wake_command wakes it.",
    )
    power_command: str = setting(
        "",
        "Command that prints what the machine takes, in watts, such as a smart plug's."
        " Run each half minute for at most 10 s. Empty: sensors, else a table.",
    )

    def check_energy(self) -> None:
        """Refuse values that cannot be meant."""
        if not self.sleep.strip():
            wrong(self, "sleep", "must be off, suspend, stop or a command")
