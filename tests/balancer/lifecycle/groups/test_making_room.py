"""A group leaves for another model once it has had its turn."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from balancer.fleet.engines import EngineCandidate
from balancer.lifecycle import loader
from tests.balancer.endpoint import Endpoint, eventually
from tests.balancer.lifecycle.groups.fleets import BIG, GROUP, able, ask, fleet
from tests.fakes.reports import an_engine

OTHER = msgspec.structs.replace(
    BIG, model="other", variant="other:Q4_1", file="other.gguf"
)


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "GROUP_IDLE_SECONDS", 0.1)


async def test_an_idle_group_leaves_for_a_group_of_another_model() -> None:
    head = {"available": (BIG, OTHER), **able()}
    async with fleet("pi", head=head, filled=True) as (balancer, pc):
        first = await ask(balancer)
        second = await ask(balancer, "other")

    assert (first.status, second.status) == (200, 200)
    assert [each.variant for each in pc.groups.dissolved] == ["big:Q4_1"]
    assert [each.variant for each in pc.groups.formed] == ["big:Q4_1", "other:Q4_1"]


async def test_an_idle_group_leaves_for_a_model_that_its_memory_is_needed_for() -> None:
    cold = an_engine("cold:Q4_1", state="absent", load_seconds=0.1)
    async with fleet("pi", engine=cold) as (balancer, pc):
        await ask(balancer)
        pc.loads.refuses = "does_not_fit"
        asking = asyncio.ensure_future(ask(balancer, "cold"))
        await eventually(lambda: bool(pc.groups.dissolved))
        pc.loads.refuses = ""
        answer = await asking

    assert answer.status == 200
    assert pc.find(GROUP) is None


async def test_a_group_that_is_at_work_stays_for_its_turn() -> None:
    cold = an_engine("cold:Q4_1", state="absent", load_seconds=0.1)
    async with fleet("pi", engine=cold) as (balancer, pc):
        await ask(balancer)
        pc.change(GROUP, busy=1, state="busy")
        await eventually(lambda: any(e.engine.busy for e in groups(balancer)))
        pc.loads.refuses = "does_not_fit"
        asking = asyncio.ensure_future(ask(balancer, "cold"))
        await eventually(lambda: bool(pc.loads.orders))
        await asyncio.sleep(0.3)
        working = list(pc.groups.dissolved)
        pc.change(GROUP, busy=0, state="ready")
        await eventually(lambda: bool(pc.groups.dissolved))
        pc.loads.refuses = ""
        await asking

    assert working == []


def groups(balancer: Endpoint) -> list[EngineCandidate]:
    found = balancer.balancer.state.current.candidates
    return [each for each in found if each.engine.group]
