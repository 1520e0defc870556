from __future__ import annotations

from typing import Any

from msgspec import structs

from balancer.fleet.awoken import LOOKING, awoken
from edgeserve.reports.sleep import Sleep
from edgeserve.wire import NodeReport
from tests.fakes.reports import a_report, an_engine


def report(*, asleep: bool = False, **fields: Any) -> NodeReport:
    usual = a_report(an_engine(), name="pi")
    sleep = Sleep(how="stop", asleep=asleep)
    return structs.replace(usual, **{"sleep": sleep, **fields})


BEFORE = report(asleep=True)


def test_a_node_that_woke_up_keeps_its_engines_until_it_has_looked() -> None:
    first = awoken(BEFORE, report(engines=(), sleep=None))
    later = awoken(first, structs.replace(first, port=1))

    for each in (first, later):
        (engine,) = each.engines
        assert (engine.state, engine.reason) == ("loading", LOOKING)


def test_what_it_reports_itself_counts() -> None:
    own = report()
    assert awoken(BEFORE, own) is own

    first = awoken(BEFORE, report(engines=()))
    nothing = structs.replace(first, problems=("no model lies in the folder",))
    assert awoken(first, nothing).engines == ()


def test_a_node_that_did_not_sleep_has_what_it_reports() -> None:
    empty = report(engines=())
    assert awoken(report(), empty) is empty
    assert awoken(None, empty) is empty
    still = report(asleep=True, engines=())
    assert awoken(BEFORE, still) is still
