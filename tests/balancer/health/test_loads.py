from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from balancer.fleet.engines import NOT_LOADED, EngineCandidate
from balancer.health.loads import MOST_SECONDS, LoadFaults
from tests.balancer.building import a_candidate
from tests.fakes.reports import an_engine

ABSENT = a_candidate(
    engine=an_engine(state="absent"), unavailable=NOT_LOADED, temporary=True
)


@dataclass
class Setup:
    now: float = 0.0
    changes: int = 0
    faults: LoadFaults = field(init=False)

    def __post_init__(self) -> None:
        self.faults = LoadFaults(self._changed, lambda: self.now)

    def _changed(self) -> None:
        self.changes += 1
        self.judged()

    def judged(self) -> EngineCandidate:
        [found] = self.faults.judged([ABSENT])
        return found


def test_an_engine_that_did_not_load_is_not_waited_for_and_says_why() -> None:
    setup = Setup()
    setup.faults.failed(ABSENT.key, "the file is damaged")

    assert setup.judged().unavailable == "not loaded here: the file is damaged"
    assert not setup.judged().temporary


def test_after_a_while_it_may_be_tried_again() -> None:
    setup = Setup()
    setup.faults.failed(ABSENT.key, "no")
    setup.now = 10.0
    setup.faults.tick()

    assert setup.changes == 2
    assert setup.judged() is ABSENT


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 10), (2, 20), (4, 80), (20, 300)]
)
def test_each_failure_doubles_the_pause_up_to_five_minutes(
    failures: int, seconds: float
) -> None:
    setup = Setup()
    for _ in range(failures):
        setup.faults.failed(ABSENT.key, "no")

    setup.now = seconds - 0.1
    assert setup.judged() is not ABSENT
    setup.now = seconds
    assert setup.judged() is ABSENT
    assert seconds <= MOST_SECONDS


def test_one_that_loads_after_all_is_trusted_again() -> None:
    setup = Setup()
    setup.faults.failed(ABSENT.key, "no")
    setup.faults.loaded(ABSENT.key)

    assert setup.judged() is ABSENT


def test_where_its_node_would_try_again_so_may_requests() -> None:
    setup = Setup()
    setup.faults.failed(ABSENT.key, "no")
    setup.faults.over(ABSENT.key)

    assert setup.judged() is ABSENT
    setup.faults.failed(ABSENT.key, "no")
    setup.now = 19.9
    assert setup.judged() is not ABSENT


def test_another_file_does_not_pay_for_the_failure_of_the_one_before() -> None:
    faults = LoadFaults(lambda: None, lambda: 0.0)
    bad = a_candidate(engine=an_engine("cold:Q4_1", state="absent", created=1))
    good = a_candidate(engine=an_engine("cold:Q4_1", state="absent", created=2))
    faults.failed(bad.key, "broken", 1)

    assert faults.judged([bad]) != (bad,)
    assert faults.judged([good]) == (good,)
