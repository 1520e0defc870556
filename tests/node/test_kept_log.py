"""What a node keeps of its log: the latest lines, and never more than fits."""

from __future__ import annotations

import logging
from collections.abc import Generator

import pytest

from edgeserve.orders.log import LogLine, NodeLog, since
from node.kept_log import KEPT, OF_ONE, WIDEST, KeptLog, keeping

log = logging.getLogger("node.of.this.test")


@pytest.fixture
def kept() -> Generator[KeptLog]:
    with keeping("first") as kept:
        yield kept


def texts(found: NodeLog) -> list[str]:
    return [each.text for each in found.lines]


def a_line(text: str) -> LogLine:
    return LogLine(at=1.0, level="info", source="node", text=text)


def test_what_is_logged_is_kept_with_its_level_and_module(kept: KeptLog) -> None:
    log.warning("%s: failed to load", "small:Q4_1")

    (line,) = kept.since().lines
    assert (line.level, line.source) == ("warning", "node.of.this.test")
    assert line.text == "small:Q4_1: failed to load"


def test_what_is_said_at_the_terminal_is_kept_too(
    kept: KeptLog, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.say("listening on :8090\n  who: balancers")

    assert capsys.readouterr().out == "listening on :8090\n  who: balancers\n"
    assert texts(kept.since()) == ["listening on :8090", "  who: balancers"]


def test_after_an_answer_only_what_is_new_comes(kept: KeptLog) -> None:
    log.warning("one")
    first = kept.since()
    log.warning("two")
    second = kept.since(first.next)

    assert (texts(first), texts(second)) == (["one"], ["two"])
    assert texts(kept.since(second.next)) == []


def test_the_latest_lines_stay_and_the_others_are_counted(kept: KeptLog) -> None:
    for number in range(KEPT + 7):
        log.warning("%d", number)
    found = kept.since()

    assert texts(found) == [str(number) for number in range(7, KEPT + 7)]
    assert found.dropped == 7


def test_lines_and_messages_are_cut(kept: KeptLog) -> None:
    log.warning("x" * 10 * WIDEST)
    log.warning("\n".join(map(str, range(1000))))
    first, *others = texts(kept.since())

    assert len(first) == WIDEST
    assert others == [str(number) for number in range(1000 - OF_ONE, 1000)]


def test_a_traceback_ends_with_its_error(kept: KeptLog) -> None:
    try:
        raise ValueError("odd")
    except ValueError:
        log.exception("no plan")

    found = texts(kept.since())
    assert (found[0], found[-1]) == ("no plan", "ValueError: odd")


def test_a_message_that_cannot_be_formatted_does_not_reach_its_caller(
    kept: KeptLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    record = log.makeRecord(log.name, logging.INFO, "", 1, "%d", ("no number",), None)

    kept.handle(record)

    assert texts(kept.since()) == []


def test_nothing_is_kept_after_the_block() -> None:
    with keeping("first") as kept:
        pass
    log.warning("late")

    assert texts(kept.since()) == []


def test_a_restarted_node_sends_all_that_it_has() -> None:
    before = since("", "first", tuple(map(a_line, "abc")), 3)
    after = since(before.next, "second", (a_line("d"),), 1)

    assert texts(after) == ["d"]
    assert after.next == "second-1"


@pytest.mark.parametrize(
    "after", ["first-", "first--1", "first-9" + "9" * 5000, "first-¹", "-", "first"]
)
def test_an_odd_position_means_all(after: str) -> None:
    assert texts(since(after, "first", (a_line("a"),), 1)) == ["a"]


def test_a_position_past_the_end_means_nothing_new() -> None:
    assert since("first-9", "first", (a_line("a"),), 1) == NodeLog(next="first-1")
