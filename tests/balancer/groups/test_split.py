"""Splits: members within their memory, and no quicker way to place the layers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import product

import pytest

from balancer.groups.split import (
    UNMEASURED,
    WORTH,
    Links,
    Member,
    Split,
    Wanted,
    best_split,
    hop,
)
from edgeserve.orders.groups import LayeredModel, NodeLink

GB = 10**9
MODEL = LayeredModel(
    layers=8, layer_bytes=GB, rest_bytes=GB // 2, kv_bytes=1000, hidden_bytes=16384,
    context=8192,
)  # fmt: skip
WANTED = Wanted(model=MODEL, tokens=4096)
LAN = NodeLink(round_trip=0.0005, bytes_per_second=1e8)


def a_machine(name: str, gigabytes: float, speed: float = 10, **more: object) -> Member:
    fields: dict[str, object] = {
        "node": name,
        "name": name,
        "memory": gigabytes * GB,
        "bytes_per_second": speed * GB,
        "rpc": "7.0.0",
    }
    return Member(**fields | more)  # type: ignore[arg-type]


def among(*machines: Member, link: NodeLink | None = LAN) -> Split | None:
    links = {(a.node, b.node): link for a in machines for b in machines}
    return best_split(WANTED, machines, links)


def layers(split: Split | None) -> dict[str, int]:
    return {each.machine.name: each.layers for each in split.shares} if split else {}


def test_two_machines_share_what_neither_holds() -> None:
    split = among(a_machine("a", 7, head=True), a_machine("b", 7))

    assert split is not None
    assert sum(layers(split).values()) == 8
    assert layers(split).keys() == {"a", "b"}


def test_a_third_machine_is_left_out_where_two_hold_the_model() -> None:
    split = among(a_machine("a", 7, head=True), a_machine("b", 7), a_machine("c", 7))

    assert len(layers(split)) == 2


def test_a_quicker_third_machine_takes_part() -> None:
    quick = a_machine("quick", 4, 200)
    split = among(a_machine("a", 7, head=True), a_machine("b", 7), quick)

    assert "quick" in layers(split)


def test_the_head_is_the_machine_with_the_file_that_makes_it_quickest() -> None:
    slow = a_machine("slow", 6.6, 5, head=True)
    quick = a_machine("quick", 6.6, 50, head=True)
    split = among(slow, quick)

    assert split is not None
    assert split.head.machine.name == "quick"


def test_a_machine_that_the_head_cannot_reach_takes_no_part() -> None:
    assert among(a_machine("a", 7, head=True), a_machine("b", 7), link=None) is None


def test_another_version_of_rpc_takes_no_part() -> None:
    head = a_machine("a", 7, head=True)

    assert among(head, a_machine("b", 7, rpc="8.0.0")) is None


def test_of_two_equal_workers_the_one_with_the_better_link_is_taken() -> None:
    machines = (
        a_machine("a", 7, head=True),
        a_machine("wifi", 7),
        a_machine("wire", 7),
    )
    links = {("a", "wifi"): NodeLink(round_trip=0.02, bytes_per_second=3e6)}
    split = best_split(WANTED, machines, {**links, ("a", "wire"): LAN})

    assert layers(split).keys() == {"a", "wire"}


def test_a_link_that_was_not_measured_counts_as_a_poor_one() -> None:
    machines = (a_machine("a", 7, head=True), a_machine("b", 7))
    split = best_split(WANTED, machines, {})

    assert split is not None
    assert split.unmeasured == ("b",)
    assert split.workers[0].travels == hop(MODEL, UNMEASURED)


CHANCES = range(60)


@pytest.mark.parametrize("seed", CHANCES)
def test_no_other_way_to_place_the_layers_is_quicker(seed: int) -> None:
    machines, links = at_random(seed)
    split = best_split(WANTED, machines, links)
    ways = list(every_way(machines, links))

    assert (split is None) == (not ways)
    if split is not None:
        quickest = min(seconds for seconds, _ in ways)
        price = WORTH * quickest
        fewest = min(seconds + price * workers for seconds, workers in ways)
        mine = cost(split) + price * len(split.workers)
        # Each head has a price of its own, that of its own quickest way.
        assert mine <= fewest + 2 * WORTH * cost(split)
        assert cost(split) <= quickest * (1 + WORTH * len(machines))


@pytest.mark.parametrize("seed", CHANCES)
def test_every_member_is_within_its_memory_and_shares_make_one(seed: int) -> None:
    machines, links = at_random(seed)
    split = best_split(WANTED, machines, links)
    if split is not None:
        assert all(s.memory <= s.machine.memory for s in split.shares)
        assert sum(s.layers / MODEL.layers for s in split.shares) == pytest.approx(1)
        assert all(s.layers > 0 for s in split.workers)


@pytest.mark.parametrize("seed", CHANCES)
def test_no_machine_takes_part_that_makes_it_slower(seed: int) -> None:
    machines, links = at_random(seed)
    split = best_split(WANTED, machines, links)
    for extra in split.workers if split else ():
        fewer = [each for each in machines if each != extra.machine]
        without = best_split(WANTED, fewer, links)
        if split and without:
            assert cost(split) <= cost(without) * (1 + WORTH)


def cost(split: Split) -> float:
    return sum(each.computes + each.travels for each in split.shares)


def at_random(seed: int) -> tuple[list[Member], Links]:
    chance = random.Random(seed)  # noqa: S311 - the same fleets in each run
    machines = [
        a_machine(
            str(number),
            chance.uniform(0, 8),
            chance.choice((1, 10, 10, 100)),
            head=number == 0 or chance.random() < 0.3,
        )
        for number in range(chance.randint(2, 4))
    ]
    links = {
        (a.node, b.node): NodeLink(
            round_trip=chance.choice((0.0002, 0.005, 0.3)),
            bytes_per_second=chance.choice((1e6, 1e8)),
        )
        for a in machines
        for b in machines
    }
    return machines, links


def every_way(machines: Sequence[Member], links: Links) -> Iterator[tuple[float, int]]:
    """Yield the seconds of each way to place the layers, and its workers."""
    for head in (each for each in machines if each.head):
        for placed in product(range(MODEL.layers + 1), repeat=len(machines)):
            by_machine = list(zip(machines, placed, strict=True))
            used = [(m, n) for m, n in by_machine if n and m is not head]
            own = sum(n for m, n in by_machine if m is head)
            if sum(placed) != MODEL.layers or not used:
                continue
            if head.memory < WANTED.head:
                continue
            if any(n > WANTED.fitting(m.memory, head=False) for m, n in used):
                continue
            if own > WANTED.fitting(head.memory, head=True):
                continue
            seconds = own * MODEL.layer_bytes / head.bytes_per_second
            for machine, number in used:
                link = links[head.node, machine.node]
                assert link is not None
                seconds += number * MODEL.layer_bytes / machine.bytes_per_second
                seconds += hop(MODEL, link)
            yield seconds, len(used)
