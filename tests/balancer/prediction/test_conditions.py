import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.prediction.conditions import (
    MachinePolicy,
    condition,
    crowding,
    foreign_share,
)
from edgeserve.reports.hardware import Cpu, Hardware, Memory, Platform, Power, Thermal

WELL = Hardware(
    platform=Platform(system="Linux", release="6", machine="aarch64", python="3.11"),
    cpu=Cpu(model="fake", physical_cores=4, logical_cores=4, load=0.0),
    memory=Memory(total=2**33, available=2**32),
    power=Power(on_mains=True),
    thermal=Thermal(),
)


def a_machine(*, power: Power | None = None, **thermal: bool) -> Hardware:
    return msgspec.structs.replace(
        WELL,
        power=power or WELL.power,
        thermal=Thermal(**thermal),
    )


def test_a_machine_that_is_well_is_taken_at_its_word() -> None:
    found = condition(a_machine(), 0.0, 4)

    assert (found.scale, found.avoided) == (1.0, None)


@pytest.mark.parametrize(
    "ill",
    [
        a_machine(throttled=True),
        a_machine(under_voltage=True),
        a_machine(power=Power(on_mains=False, percent=80)),
    ],
)
def test_a_machine_that_suffers_is_predicted_to_be_slower(ill: Hardware) -> None:
    found = condition(ill, 0.0, 4)

    assert found.scale > 1
    assert found.avoided is None


def test_a_battery_that_runs_low_is_left_alone() -> None:
    found = condition(a_machine(power=Power(on_mains=False, percent=12)), 0.0, 4)

    assert found.avoided == "its battery is at 12 %"


def test_nothing_runs_on_battery_where_the_policy_says_so() -> None:
    machine = a_machine(power=Power(on_mains=False, percent=99))

    assert condition(machine, 0.0, 4, MachinePolicy(on_battery=False)).avoided


def test_an_owner_at_work_comes_first() -> None:
    assert condition(a_machine(), 0.95, 4).avoided
    assert not condition(a_machine(), 0.95, 4, MachinePolicy(owner_first=False)).avoided


@pytest.mark.parametrize(
    ("foreign", "threads", "cores", "slower"),
    [
        (0.05, 4, 4, 1.0),  # what every machine does beside
        (0.5, 2, 4, 1.0),  # side by side
        (0.5, 4, 4, 1.5),
        (1.0, 2, 4, 1.5),
        (1.0, 4, 4, 2.0),  # half of each core
        (1.0, 8, 4, 2.0),  # no thread counts twice
        (0.5, 1, 1, 1.5),
    ],
)
def test_others_work_takes_its_fair_share_of_the_cores(
    foreign: float, threads: int, cores: int, slower: float
) -> None:
    assert crowding(foreign, threads, cores) == pytest.approx(slower)


@given(foreign=st.floats(0, 1), threads=st.integers(0, 256), cores=st.integers(0, 128))
def test_no_engine_is_slowed_down_more_than_twice(
    foreign: float, threads: int, cores: int
) -> None:
    assert 1.0 <= crowding(foreign, threads, cores) <= 2.0


def test_our_own_work_is_not_counted_as_the_owners() -> None:
    assert foreign_share(0.95, own=1.0, before=0.0) == 0.0
    assert foreign_share(0.95, own=0.5, before=0.0) == pytest.approx(0.45)


def test_the_owners_work_does_not_vanish_behind_ours() -> None:
    seen = foreign_share(0.6, own=0.0, before=0.0)
    beside = foreign_share(1.0, own=1.0, before=seen)
    ended = foreign_share(0.2, own=1.0, before=beside)

    assert (seen, beside, ended) == (0.6, 0.6, 0.2)
