from __future__ import annotations

import ipaddress
from typing import Any

from balancer.energy.wake import (
    GRACE,
    MINUTE,
    Attempts,
    Losses,
    SleepingMachine,
    WakeUp,
    learned,
    lost_share,
    patience,
    to_wake,
)
from balancer.energy.waking import broadcasts
from balancer.fleet.engines import ASLEEP, EngineCandidate
from balancer.lifecycle.demand import Demand
from balancer.routing.queued_request import QueuedRequest
from edgeserve.network import magic_packet
from edgeserve.reports.sleep import NetworkCard
from tests.balancer.building import a_candidate, a_request, unheard
from tests.fakes.reports import an_engine

NOW = 1000.0


def asleep(node: str = "gpu", **engine: Any) -> EngineCandidate:
    return a_candidate(node, an_engine(**engine), unavailable=ASLEEP, temporary=True)


def demand(
    *pending: EngineCandidate, ready: tuple[EngineCandidate, ...] = (), age: float = 0.0
) -> Demand:
    request = QueuedRequest(a_request(), unheard, NOW - age)
    return Demand(requests=(request,), ready=ready, pending=pending)


def woken(demand: Demand, wait: float = 0.0, **machines: SleepingMachine) -> list[str]:
    there = {"gpu": a_machine()} | machines
    found: list[WakeUp] = [*to_wake([demand], there, lambda _: wait, NOW)]
    return [each.machine.name for each in found]


def a_machine(name: str = "gpu", **changes: Any) -> SleepingMachine:
    usual: dict[str, Any] = {"id": name, "name": name, "boot": 20.0}
    return SleepingMachine(**usual | changes)


def test_what_alone_can_serve_a_request_is_woken_once() -> None:
    assert woken(demand(asleep())) == ["gpu"]
    assert woken(demand(asleep()), gpu=a_machine(waking=True)) == []


def test_of_several_the_one_that_can_answer_first_is_woken() -> None:
    slow = asleep("nuc", state="absent", load_seconds=30.0)
    both = demand(slow, asleep())

    assert woken(both, nuc=a_machine("nuc", boot=1.0)) == ["gpu"]
    assert woken(both, nuc=a_machine("nuc", boot=1.0), gpu=a_machine(boot=90.0)) == [
        "nuc"
    ]


def test_it_is_woken_if_requests_would_still_wait_when_it_is_up() -> None:
    both = demand(asleep(), ready=(a_candidate("pi"),))

    assert woken(both, wait=19.0) == []
    assert woken(both, wait=21.0) == ["gpu"]


def test_a_machine_that_is_awake_gets_the_time_to_load_the_model() -> None:
    absent = a_candidate("pi", an_engine(state="absent", load_seconds=10.0))
    young, old = (demand(asleep(), absent, age=age) for age in (15.0, 25.0))

    assert (woken(young), woken(old)) == ([], ["gpu"])


def test_seconds_that_requests_lose_wake_a_fast_machine() -> None:
    losses, there = Losses(factor=1.0), {"gpu": a_machine()}
    for second in range(60):
        losses.passed({"gpu": lost_share(1 / 20, 1 / 90)}, float(second))
        if (found := losses.due(there)) is not None:
            break
    else:
        raise AssertionError("it sleeps on")

    assert 20 < second < 30
    assert "longer without it" in found.why
    assert losses.due(there) is None, "what was lost is paid"


def test_losses_are_forgotten_with_time_and_do_not_count_for_energy() -> None:
    seldom, never = Losses(factor=1.0), Losses(factor=None)
    for hour in range(50):
        seldom.passed({"gpu": 1.0 if hour else 0.0}, 3600.0 * hour)
        seldom.passed({"gpu": 0.0}, 3600.0 * hour + 10.0)
        never.passed({"gpu": 1.0}, 3600.0 * hour)

    assert lost_share(1 / 90, 1 / 20) == 0.0
    assert never.due({"gpu": a_machine()}) is None


def test_one_that_does_not_come_up_is_left_alone_for_longer_each_time() -> None:
    attempts, pauses, now = Attempts(), list[float](), 0.0
    for _ in range(4):
        attempts = attempts.begun(now)
        now += patience(10.0)
        assert attempts.failed(now, 10.0)
        attempts = attempts.ended_in_vain(now)
        pauses.append(attempts.rests - now)
        now = attempts.rests

    assert pauses == [MINUTE, 2 * MINUTE, 4 * MINUTE, 8 * MINUTE]


def test_a_packet_is_sent_again_while_a_machine_boots() -> None:
    attempts = Attempts().begun(0.0)

    assert not attempts.due(4.0)
    assert attempts.due(5.0)
    assert not attempts.repeated(5.0).due(9.0)
    assert attempts.repeated(5.0).began == 0.0


def test_boots_are_learned_and_slow_ones_get_their_time() -> None:
    assert learned(None, 40.0) == 40.0
    assert 40.0 < learned(40.0, 80.0) < 80.0
    assert patience(100.0) > 100.0
    assert GRACE < MINUTE


def test_a_magic_packet_is_the_address_of_the_card_sixteen_times() -> None:
    packet = magic_packet("01:02:03:0a:0b:0c")

    assert len(packet) == 102
    assert packet == b"\xff" * 6 + b"\x01\x02\x03\x0a\x0b\x0c" * 16


def test_packets_go_to_networks_of_this_machine_only() -> None:
    own = {
        "eth0": (ipaddress.IPv4Interface("10.0.0.7/24"),),
        "lo": (ipaddress.IPv4Interface("127.0.0.1/8"),),
        "docker0": (ipaddress.IPv4Interface("172.17.0.1/16"),),
    }
    near = NetworkCard(mac="02:00:00:00:00:01", broadcast="10.0.0.255")
    false = NetworkCard(mac="02:00:00:00:00:02", broadcast="203.0.113.255")

    assert list(broadcasts([near], own)) == [(near.mac, "10.0.0.255")]
    assert list(broadcasts([false], own)) == [(false.mac, "10.0.0.255")]
