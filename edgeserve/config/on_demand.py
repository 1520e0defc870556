"""On-demand settings: which models a node holds in memory, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeserve.config.limits import setting
from edgeserve.config.values import at_least


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
