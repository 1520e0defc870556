"""Usage is counted in memory, and written in batches that nothing loses."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from balancer.clients.store import UsageCounts, store_in, usage_since
from balancer.clients.usage import ClientUsage, counting
from balancer.dialects.timings import Timings
from balancer.routing.decision import Send
from balancer.telemetry.records import AttemptRecord, RequestRecord, TokensUsed
from tests.balancer.building import a_candidate
from tests.balancer.endpoint import eventually
from tests.fakes.reports import an_engine

NOON = 1_795_867_200.0
DAY = 86_400.0


def an_attempt(timings: Timings | None, **fields: Any) -> AttemptRecord:
    to = a_candidate(engine=an_engine(variant="small:Q4_1"))
    return AttemptRecord(Send(to, 1), 0.0, timings=timings, **fields)


def took(cached: int, prompt: int, answer: int) -> Timings:
    return Timings(cached, prompt, 0.0, answer, 0.0)


def a_record(*attempts: AttemptRecord) -> RequestRecord:
    record = RequestRecord("req-1", "/", "small", "ann", 0.0, 0.0)
    record.attempts.extend(attempts)
    return record


ONE = TokensUsed("small", prompt=5, cached=2, answer=4)


def test_a_request_that_reached_no_engine_used_nothing() -> None:
    assert a_record().used is None


def test_an_answer_of_several_engines_has_one_prompt_and_all_its_text() -> None:
    record = a_record(
        an_attempt(took(0, 50, 7)),  # begun anew elsewhere: this one was lost
        an_attempt(None),
        an_attempt(took(10, 40, 5)),
        an_attempt(took(0, 55, 6), resumes=True),
    )

    used = record.used
    assert used is not None
    assert (used.model, used.prompt, used.cached, used.answer) == ("small", 50, 10, 11)


def test_days_are_told_apart_and_looked_back_on(tmp_path: Path) -> None:
    now = NOON
    usage = ClientUsage(store_in(tmp_path), lambda: now)
    usage.add("ann", ONE)
    now += DAY
    usage.add("ann", ONE)
    usage.add("ann", ONE)

    days = [(each[2], counts.requests) for each, counts in usage.since(2).items()]
    assert [requests for _, requests in sorted(days)] == [1, 2]
    assert [counts.requests for counts in usage.since(1).values()] == [2]


def test_two_balancers_add_to_one_sum(tmp_path: Path) -> None:
    both = [ClientUsage(store_in(tmp_path)) for _ in range(2)]
    for each in both:
        each.add("ann", ONE)
        assert each.write()

    (counts,) = both[0].since(1).values()
    assert counts == UsageCounts(2, 10, 4, 8)


def test_what_cannot_be_written_is_kept_shown_and_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = store_in(tmp_path)
    path.write_bytes(b"no database" * 500)
    usage = ClientUsage(path)
    for _ in range(3):
        usage.add("ann", ONE)
        assert not usage.write()

    assert [counts.requests for counts in usage.since(1).values()] == [3]
    warned = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warned) == 1
    assert "cannot write usage to" in caplog.text
    path.unlink()
    assert usage.write()
    assert [counts.requests for _, counts in usage_since(path, "2026")] == [3]


def test_counters_that_cannot_be_written_do_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balancer.clients.usage.MOST_WAITING", 2)
    (tmp_path / "clients.db").mkdir()
    now = NOON
    usage = ClientUsage(store_in(tmp_path), lambda: now)
    for _ in range(5):
        usage.add("ann", ONE)
        now += DAY

    assert len(usage.since(9)) == 2


async def test_a_batch_is_written_while_it_runs_and_the_last_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balancer.clients.usage.BATCH_SECONDS", 0.01)
    path = store_in(tmp_path)

    def written() -> int:
        return sum(counts.requests for _, counts in usage_since(path, "2026"))

    async with counting(tmp_path) as usage:
        usage.add("ann", ONE)
        await eventually(lambda: written() == 1)
        await asyncio.sleep(0)
        usage.add("ann", ONE)
        usage.add("ann", ONE)

    assert written() == 3
