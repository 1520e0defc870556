"""When a request at work is given up, and when it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from balancer.failover.stall import ExpectedPace, Sign
from balancer.failover.watchdog import AttemptWatchdog
from balancer.fleet.engines import EngineKey
from tests.balancer.building import a_request

KEY = ("pi", "small:Q4_1")
FAST = ExpectedPace(token=0.1, batch=0.5, ping=1.0)
TELLS = ExpectedPace(token=0.1, batch=0.5)


class Known:
    """A watchdog whose answers a test sets."""

    def __init__(self, **known: Any) -> None:
        self.of_pace: ExpectedPace = known.get("pace", FAST)
        self.is_trusted = True
        self.idle: float | None = known.get("idle", 1.0)
        self.budget_left: int = known.get("budget", 3)
        self.probes = 0
        self.is_silent = False
        self.is_stuck = False
        self.woke = False
        self.worked: float = known.get("worked", 0.0)
        self.read = -inf

    def time(self) -> float:
        return asyncio.get_running_loop().time()

    def pace(self, key: EngineKey) -> ExpectedPace:  # noqa: ARG002 - there is one engine
        return self.of_pace

    def trusted(self, key: EngineKey) -> bool:  # noqa: ARG002
        return self.is_trusted

    def seconds_elsewhere(self, routing: object, key: EngineKey) -> float | None:  # noqa: ARG002
        return self.idle

    def node_silent(self, routing: object, key: EngineKey) -> bool:  # noqa: ARG002
        return self.is_silent

    def last_work(self, key: EngineKey) -> float:  # noqa: ARG002
        return self.worked

    def last_read(self, attempt: AttemptWatchdog) -> float:  # noqa: ARG002
        return self.read

    def stuck(self, key: EngineKey) -> bool:  # noqa: ARG002
        return self.is_stuck

    def probe(self, key: EngineKey) -> None:  # noqa: ARG002
        self.probes += 1


async def watched(
    known: Known, then: Callable[[AttemptWatchdog, float], None], **given: Any
) -> AttemptWatchdog:
    """Let things happen to a request; returns its watchdog."""
    fields: dict[str, Any] = {
        "watchdog": known,
        "predicted": 1.0,
        "reports_progress": True,
    } | given

    async def attempt() -> AttemptWatchdog:
        now = asyncio.get_running_loop().time()
        watchdog = AttemptWatchdog(key=KEY, routing=a_request(), started=now, **fields)
        then(watchdog, now)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            assert watchdog.gave_up()
        return watchdog

    return await asyncio.ensure_future(attempt())


def hears(*signs: str) -> Callable[[AttemptWatchdog, float], None]:
    def then(watchdog: AttemptWatchdog, now: float) -> None:
        for sign in signs:
            watchdog.note(sign)  # type: ignore[arg-type]  # one of them
        watchdog.tick(now + 4)
        watchdog.tick(now + 40)

    return then


async def test_a_text_that_stops_is_given_up() -> None:
    watchdog = await watched(Known(), hears("head", "text"))

    assert watchdog.why == "it made no progress"
    assert watchdog.fault == "engine"


async def test_pings_do_not_stand_for_text() -> None:
    watchdog = await watched(Known(), hears("head", "text", "ping", "ping"))

    assert watchdog.why


async def test_a_text_that_goes_on_is_left_alone() -> None:
    def goes_on(watchdog: AttemptWatchdog, now: float) -> None:
        watchdog.note("text")
        for second in range(60):
            watchdog.texts += 1
            watchdog.tick(now + second)

    assert (await watched(Known(), goes_on)).why == ""


@pytest.mark.parametrize("signs", [["head", "text"], ["head", "progress"]])
async def test_an_engine_that_reads_anothers_prompt_is_alive(signs: list[Sign]) -> None:
    """One that has become eight times slower needs as long for a batch."""
    known = Known(pace=ExpectedPace(token=0.1, batch=1.2))
    given_up = list[bool]()

    def waits(watchdog: AttemptWatchdog, now: float) -> None:
        for sign in signs:
            watchdog.note(sign)
        known.read = known.worked = now + 5
        for seconds in (6, 24, 28.9, 30):
            watchdog.tick(now + seconds)
            given_up.append(bool(watchdog.why))

    assert (await watched(known, waits)).why == "it made no progress"
    assert given_up == [False, False, False, True]


async def test_a_request_that_alone_is_lost_is_given_up_while_others_are_read() -> None:
    known = Known()

    def lost(watchdog: AttemptWatchdog, now: float) -> None:
        watchdog.note("text")
        for second in range(60):
            known.read = now + second
            watchdog.tick(now + second)

    assert (await watched(known, lost)).why == "it made no progress"


async def test_a_text_that_may_pause_is_given_more_time() -> None:
    def pauses(watchdog: AttemptWatchdog, now: float) -> None:
        watchdog.note("text")
        watchdog.tick(now + 20)

    assert (await watched(Known(), pauses)).why
    assert (await watched(Known(), pauses, may_pause=True)).why == ""


async def test_a_slow_prompt_that_makes_progress_is_left_alone() -> None:
    slow = Known(pace=ExpectedPace(token=1.0, batch=20.0))

    assert (await watched(slow, hears("head", "progress"))).why == ""


async def test_a_prompt_that_is_read_no_further_is_given_up() -> None:
    watchdog = await watched(Known(pace=TELLS), hears("head", "progress", "ping"))

    assert watchdog.why == "it made no progress"
    assert watchdog.fault == "engine"


@pytest.mark.parametrize(
    "known", [{"pace": TELLS, "worked": inf}, {"pace": ExpectedPace()}]
)
async def test_a_prompt_may_wait_for_what_its_engine_does_unseen(known: Any) -> None:
    watchdog = await watched(Known(**known), hears("head", "progress"))

    assert watchdog.why == ""


async def test_a_prompt_may_wait_while_its_engine_answers_others() -> None:
    known = Known(pace=TELLS)

    def waits(watchdog: AttemptWatchdog, now: float) -> None:
        watchdog.note("progress")
        for second in range(60):
            known.worked = now + second
            watchdog.tick(now + second)

    assert (await watched(known, waits)).why == ""


async def test_an_engine_that_its_node_gives_up_is_given_up_at_once() -> None:
    known = Known()
    known.is_stuck = True

    def tick(watchdog: AttemptWatchdog, now: float) -> None:
        watchdog.note("text")
        watchdog.tick(now)

    assert "its node" in (await watched(known, tick)).why


async def test_work_is_hidden_until_text_comes_where_the_engine_does_not_tell() -> None:
    def writes(watchdog: AttemptWatchdog, now: float) -> None:  # noqa: ARG001
        watchdog.note("text")

    def nothing(watchdog: AttemptWatchdog, now: float) -> None:
        pass

    assert (await watched(Known(), nothing, reports_progress=False)).hidden
    assert not (await watched(Known(), writes, reports_progress=False)).hidden
    assert not (await watched(Known(), nothing)).hidden


async def test_what_does_not_begin_is_asked_elsewhere_where_a_slot_is_idle() -> None:
    assert (await watched(Known(), hears())).fault == "doubt"
    assert (await watched(Known(idle=None), hears())).why == ""
    assert (await watched(Known(budget=0), hears())).why == ""
    assert (await watched(Known(), hears(), reports_progress=False)).why == ""


async def test_an_engine_that_is_silent_is_probed_once() -> None:
    known = Known(idle=None)

    await watched(known, hears())

    assert known.probes == 1


async def test_an_engine_that_does_not_answer_a_probe_loses_what_has_not_begun() -> (
    None
):
    def found_out(watchdog: AttemptWatchdog, now: float) -> None:
        known.is_trusted = False
        watchdog.tick(now + 1)

    known = Known()

    assert "probe" in (await watched(known, found_out)).why


@pytest.mark.parametrize("signs", [(), ("head", "progress"), ("head", "text")])
async def test_a_node_that_falls_silent_loses_what_shows_no_life(
    signs: tuple[Sign, ...],
) -> None:
    known = Known(pace=ExpectedPace(token=100.0, batch=100.0), idle=None)

    def falls_silent(watchdog: AttemptWatchdog, now: float) -> None:
        for sign in signs:
            watchdog.note(sign)
        known.is_silent = True
        for tenth in range(75):
            watchdog.tick(now + tenth / 10)

    assert (await watched(known, falls_silent)).why == "its node is silent"


async def test_a_node_that_is_back_at_once_loses_nothing() -> None:
    known = Known(idle=None)

    def blinks(watchdog: AttemptWatchdog, now: float) -> None:
        for second in range(5, 60):
            known.is_silent = second % 2 == 0
            watchdog.tick(now + second)

    assert (await watched(known, blinks)).why == ""


async def test_an_answer_that_still_comes_is_not_given_up_with_its_nodes_word() -> None:
    known = Known()
    known.is_silent = True

    def goes_on(watchdog: AttemptWatchdog, now: float) -> None:
        watchdog.note("text")
        for second in range(60):
            watchdog.texts += 1
            watchdog.tick(now + second)

    assert (await watched(known, goes_on)).why == ""


@pytest.mark.parametrize("signs", [(), ("head", "progress"), ("head", "text")])
async def test_an_engine_is_not_judged_while_its_client_takes_nothing(
    signs: tuple[Sign, ...],
) -> None:
    paused = True

    def sleeps(watchdog: AttemptWatchdog, now: float) -> None:
        nonlocal paused
        for sign in signs:
            watchdog.note(sign)
        for second in range(60):
            watchdog.tick(now + second)
        assert watchdog.excused
        paused = False
        watchdog.tick(now + 61)

    watchdog = await watched(Known(idle=None), sleeps, paused=lambda: paused)

    assert watchdog.why == ""


async def test_it_is_judged_again_once_the_client_reads() -> None:
    paused = True

    def wakes(watchdog: AttemptWatchdog, now: float) -> None:
        nonlocal paused
        watchdog.note("text")
        watchdog.tick(now + 30)
        paused = False
        watchdog.tick(now + 70)

    watchdog = await watched(Known(), wakes, paused=lambda: paused)

    assert watchdog.why == "it made no progress"


async def test_a_client_that_leaves_is_not_mistaken_for_it() -> None:
    watchdog = await watched(Known(), lambda _v, _n: None)

    assert not watchdog.gave_up()
