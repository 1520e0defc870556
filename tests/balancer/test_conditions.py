import msgspec
import pytest

from balancer.conditions import Policy, condition
from edgeserve.wire import Cpu, Hardware, Memory, Platform, Power, Thermal

WELL = Hardware(
    platform=Platform(system="Linux", release="6", machine="aarch64", python="3.11"),
    cpu=Cpu(model="fake", physical_cores=4, logical_cores=4, load=0.0),
    memory=Memory(total=2**33, available=2**32),
    power=Power(on_mains=True),
    thermal=Thermal(),
)


def a_machine(
    *, load: float = 0.0, power: Power | None = None, **thermal: bool
) -> Hardware:
    return msgspec.structs.replace(
        WELL,
        cpu=msgspec.structs.replace(WELL.cpu, load=load),
        power=power or WELL.power,
        thermal=Thermal(**thermal),
    )


def test_a_machine_that_is_well_is_taken_at_its_word() -> None:
    found = condition(a_machine(), busy=0.0)

    assert (found.scale, found.barred) == (1.0, None)


@pytest.mark.parametrize(
    "ill",
    [
        a_machine(throttled=True),
        a_machine(under_voltage=True),
        a_machine(power=Power(on_mains=False, percent=80)),
        a_machine(load=0.7),
    ],
)
def test_a_machine_that_suffers_is_predicted_to_be_slower(ill: Hardware) -> None:
    found = condition(ill, busy=0.0)

    assert found.scale > 1
    assert found.barred is None


def test_a_battery_that_runs_low_is_left_alone() -> None:
    found = condition(a_machine(power=Power(on_mains=False, percent=12)), busy=0.0)

    assert found.barred == "its battery is at 12 %"


def test_nothing_runs_on_battery_where_the_policy_says_so() -> None:
    machine = a_machine(power=Power(on_mains=False, percent=99))

    assert condition(machine, 0.0, Policy(on_battery=False)).barred


def test_an_owner_at_work_comes_first() -> None:
    assert condition(a_machine(load=0.95), busy=0.0).barred
    assert not condition(a_machine(load=0.95), 0.0, Policy(owner_first=False)).barred


def test_our_own_work_is_not_held_against_the_owner() -> None:
    found = condition(a_machine(load=0.95), busy=0.9)

    assert (found.scale, found.barred) == (1.0, None)
