from __future__ import annotations

from msgspec import structs

from balancer.fleet.members import Node
from balancer.prediction.energy.joules import EnergyBook
from balancer.prediction.prefix_cache import PrefixCacheIndex
from edgeserve.reports.hardware import Power
from tests.balancer.building import a_fleet
from tests.balancer.engine_models import PI, an_engine_model


class Machine:
    """A machine whose watts are reported, and the book that learns from them."""

    def __init__(self) -> None:
        (self.node,) = a_fleet("pi").nodes
        self.key = "pi", self.node.report.engines[0].id
        self.worked = 0.0
        self.model = an_engine_model(PrefixCacheIndex(), "pi", PI)
        self.book = EnergyBook(lambda _: self.model, lambda _: self.worked)
        self.now = 0.0

    def reports(self, **power: float) -> None:
        usual = Power(on_mains=True, idle=3.0, full=9.0, source="power_command")
        said = structs.replace(usual, **power)
        hardware = structs.replace(self.node.report.hardware, power=said)
        report = structs.replace(self.node.report, hardware=hardware)
        node = Node(
            id=self.node.id, name="pi", report=report, origin=self.node.origin,
            state="up", addresses=(),
        )  # fmt: skip
        self.now += 5.0
        if power.get("working"):
            self.worked = self.now
        self.book.look([node], self.now)


def test_until_something_is_measured_the_nodes_table_counts() -> None:
    machine = Machine()
    machine.reports()
    found = machine.book.energy(machine.key)

    assert machine.model.watts == 6.0
    assert found is not None
    assert not found.measured


def test_a_token_takes_the_watts_above_idle_for_its_seconds() -> None:
    machine = Machine()
    for _ in range(20):
        machine.reports(watts=2.0, working=0.0)
    for share in (0.25, 1.0, 0.5) * 10:
        machine.reports(watts=2.0 + 8.0 * share, working=share)
    found = machine.book.energy(machine.key)

    assert found is not None
    assert found.measured
    assert abs(found.write - 8.0 * PI.decode) < 0.02
    assert abs(found.read - 8.0 * PI.prefill) < 0.02


def test_what_was_learned_outlives_the_process() -> None:
    machine, later = Machine(), Machine()
    for _ in range(5):
        machine.reports(watts=3.0, working=0.0)
    machine.reports(watts=13.0, working=1.0)
    later.book.load(machine.book.dump())
    later.reports()

    assert later.model.watts == machine.model.watts == 10.0


def test_what_other_programs_take_while_nothing_is_asked_is_no_work() -> None:
    machine = Machine()
    for _ in range(5):
        machine.reports(watts=3.0, working=0.0)
    machine.worked = -1.0
    before = machine.model.watts
    machine.reports(watts=30.0, working=0.01)

    assert machine.model.watts == before
