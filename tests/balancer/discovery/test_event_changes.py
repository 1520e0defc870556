"""What a node sends of changes gives, applied one after the other, its whole report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.fleet.members import Fleet
from edgeserve.http.sse import Event, EventReader
from edgeserve.http.types import Origin
from edgeserve.wire import EngineChange, NodeReport, changed, decode
from node import state as node_state
from node.state import EventFeed
from tests.fakes.reports import a_report, an_engine
from tests.patience import PATIENCE

HERE = Origin("10.0.0.1", 8090)
IDS = ("a:Q4_0", "b:Q4_0", "c:Q4_0")


@dataclass
class Told:
    """A node whose report tests change, and what a follower knows of it."""

    report: NodeReport = field(default_factory=lambda: a_report(an_engine(IDS[0])))
    reader: EventReader = field(default_factory=EventReader)
    fleet: Fleet = field(
        default_factory=lambda: Fleet().discovered("pi", "static", (HERE,), None)
    )

    def __post_init__(self) -> None:
        self.feed = EventFeed(
            lambda: self.report, lambda: {each.id: each for each in self.report.engines}
        )

    async def hears(self, stream: AsyncGenerator[bytes]) -> str:
        """Take in what is sent next; returns the name of the last event."""
        events = list(self.reader.feed(await anext(stream)))
        for event in events:
            self.take(event)
        return events[-1].name

    def does(self, what: str, *how: Any) -> None:
        """Change something of the report."""
        if what == "busy":
            self.busy(*how)
        elif what == "engines":
            self.becomes(engines=tuple(map(an_engine, sorted(how[0]))))
        else:
            self.becomes(**{what: how if what == "problems" else how[0]})

    def busy(self, id_: str, busy: int) -> None:
        """Change one engine, if it is there, and say so."""
        engines = [
            msgspec.structs.replace(each, busy=busy) if each.id == id_ else each
            for each in self.report.engines
        ]
        self.report = msgspec.structs.replace(self.report, engines=tuple(engines))
        self.feed.engine_changed(id_)

    def becomes(self, **fields: Any) -> None:
        """Change other fields of the report, and say so."""
        self.report = msgspec.structs.replace(self.report, **fields)
        self.feed.report_changed()

    def take(self, event: Event) -> None:
        """Take in an event as a balancer does."""
        known = self.known
        if event.name == "report":
            report = decode(event.data, NodeReport)
            self.fleet = self.fleet.reported("pi", HERE, report)
        elif event.name == "engine":
            change = decode(event.data, EngineChange)
            self.fleet = self.fleet.engine_changed("pi", change.engine)
        elif event.name == "change" and known is not None:
            self.fleet = self.fleet.reported("pi", HERE, changed(known, event.data))

    @property
    def known(self) -> NodeReport | None:
        """The report as its follower has it."""
        last = self.fleet.addresses["pi"].last_report
        return None if last is None else last.report


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("busy"), st.sampled_from(IDS), st.integers(0, 3)),
        st.tuples(st.just("engines"), st.sets(st.sampled_from(IDS))),
        st.tuples(st.just("problems"), st.sampled_from(("", "hot", "old"))),
        st.tuples(st.just("instance"), st.sampled_from(("one", "two"))),
        st.tuples(st.just("hears")),
    ),
    max_size=25,
)


@given(STEPS, st.booleans())
def test_changes_applied_to_the_last_state_give_the_full_report(
    steps: list[tuple[Any, ...]], changes: bool
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(node_state, "HEARTBEAT_SECONDS", 0.005)
        patched.setattr(node_state, "COALESCE_SECONDS", 0.0)
        told = asyncio.run(_told(steps, changes))

    assert told.known is not None
    by_id = {each.id: each for each in told.known.engines}
    assert by_id == {each.id: each for each in told.report.engines}
    assert msgspec.structs.replace(told.known, engines=()) == (
        msgspec.structs.replace(told.report, engines=())
    )


async def _told(steps: list[tuple[Any, ...]], changes: bool) -> Told:
    told = Told()
    async with (
        asyncio.timeout(PATIENCE),
        aclosing(told.feed.follow(changes=changes)) as stream,
    ):
        await told.hears(stream)
        for step in steps:
            if step == ("hears",):
                await told.hears(stream)
            else:
                told.does(*step)
        while await told.hears(stream) != "heartbeat":
            pass  # until there is no news left
    return told
