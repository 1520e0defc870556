"""Routing settings: which engine gets a request, how many there are, what sleeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeserve.config.limits import setting
from edgeserve.config.values import at_least, between, one_of

PREFERENCES = ("speed", "balanced", "energy")


@dataclass(frozen=True, kw_only=True)
class RoutingSettings:
    """The settings of a balancer's routing policy and of its autoscaling."""

    SECTION: ClassVar[str] = ""

    policy: str = setting(
        "predict",
        "Routing policy: predict sends each request to the engine with the shortest"
        " predicted time to its first token; least-busy to the node with the fewest"
        " busy slots.",
    )
    calibrate: bool = setting(
        True, "Measure the speed of each new engine with a short probe."
    )
    on_battery: bool = setting(
        True, "Send requests to machines on battery even if others serve the model."
    )
    low_battery: float = setting(
        20.0,
        "Battery charge, in percent, below which a machine on battery is avoided if"
        " another serves the model.",
    )
    owner_first: bool = setting(
        True,
        "Avoid a machine while other programs use more than 90 % of its processor, if"
        " another serves the model.",
    )
    overtake: float = setting(
        6.0,
        "How far a request with little work may overtake others in the queue, in mean"
        " request times; 0: first come, first served.",
    )
    autoscale: bool = setting(
        True,
        "Load a model on another node while requests would wait longer than the"
        " wait goal, and unload it when calm. Limits of the model hold.",
    )
    wait_goal: float = setting(
        5.0,
        "Predicted wait for a slot, in seconds, above which a model is loaded on"
        " another node.",
    )
    groups: str = setting(
        "auto",
        "auto: several nodes serve a model together that fits on none, once it is asked"
        " for; off: only where an admin forms the group.",
    )

    def check_routing(self) -> None:
        """Refuse values outside their limits."""
        one_of(self, "policy", ("predict", "least-busy"))
        one_of(self, "groups", ("auto", "off"))
        between(self, "low_battery", 0, 100)
        between(self, "overtake", 0, 1000)
        at_least(self, "wait_goal", 0.1)


@dataclass(frozen=True, kw_only=True)
class FleetEnergySettings:
    """The settings of a balancer for machines that take watts, and may sleep."""

    SECTION: ClassVar[str] = ""

    prefer: str = setting(
        "speed",
        "What counts when several machines could answer now: speed; energy, which goes"
        " to the one that takes fewest joules, at most three times and 5 s later than"
        " the fastest; balanced, which weighs both, at most twice and 2 s later.",
    )
    sleep_after: float = setting(
        900.0,
        "Time without a request after which a machine may sleep whose node allows it,"
        " in seconds. 0: never.",
    )
    wake_command: str = setting(
        "",
        "Command that wakes a machine, beside the magic packet. It gets the node's"
        " name in EDGESERVE_NODE and its card in EDGESERVE_MAC.",
    )

    def check_energy(self) -> None:
        """Refuse values outside their limits."""
        one_of(self, "prefer", PREFERENCES)
        at_least(self, "sleep_after", 0)
